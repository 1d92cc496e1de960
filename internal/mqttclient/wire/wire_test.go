package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samples are packets of every type as they are encoded for a version.
func samples(v Version) [][]byte {
	flags := byte(0)
	return [][]byte{
		Connect{Version: v, ClientID: "a", Clean: true, KeepAlive: 9, Props: Props{SessionExpiry.Int(9), User("a", "b")}}.Append(nil),
		Connect{Version: v, Will: &Will{Topic: "w", Payload: []byte("x"), QoS: 1, Retain: true, Props: Props{WillDelay.Int(1)}}, User: "u", HasPassword: true}.Append(nil),
		Connect{Version: v, Flags: &flags, Level: byte(v) | 0x80}.Append(nil),
		Connack{SessionPresent: true, Props: Props{ReceiveMaximum.Int(3), ReasonString.Text("no")}}.Append(nil, v),
		Publish{Topic: "a/b", Payload: []byte("x"), QoS: 2, ID: 3, Dup: true, Retain: true, Props: Props{CorrelationData.Bytes([]byte{1})}}.Append(nil, v),
		Publish{Topic: "a"}.Append(nil, v),
		Ack{Type: PUBACK, ID: 1}.Append(nil, v),
		Ack{Type: PUBREC, ID: 1, Code: 0x87}.Append(nil, v),
		Ack{Type: PUBREL, ID: 1, Code: 0x92, Props: Props{ReasonString.Text("x")}}.Append(nil, v),
		Ack{Type: PUBCOMP, ID: 65535}.Append(nil, v),
		Subscribe{ID: 1, Filters: []Filter{{Filter: "a/#", QoS: 1, NoLocal: true, RetainHandling: 2}, {Filter: "b"}}, Props: Props{SubscriptionIdentifier.Int(MaxVarint)}}.Append(nil, v),
		Unsubscribe{ID: 1, Filters: []string{"a", "b"}}.Append(nil, v),
		Suback{ID: 1, Codes: []Code{0, 1, 0x80}}.Append(nil, v),
		Suback{ID: 1, Unsub: true, Codes: []Code{0, 0x11}}.Append(nil, v),
		Ping{}.Append(nil),
		Ping{Response: true}.Append(nil),
		Disconnect{Code: 4, Props: Props{SessionExpiry.Int(0)}}.Append(nil, v),
		Auth{Code: 0x18, Props: Props{AuthMethod.Text("m"), AuthData.Bytes([]byte("d"))}}.Append(nil),
	}
}

// encode is the inverse of Decode.
func encode(v Version, p Packet) []byte {
	switch p.Type {
	case CONNECT:
		return p.Connect.Append(nil)
	case CONNACK:
		return Connack{SessionPresent: p.SessionPresent, Code: p.Code, Props: p.Props}.Append(nil, v)
	case PUBLISH:
		return Publish{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, ID: p.ID, Props: p.Props}.Append(nil, v)
	case SUBSCRIBE:
		return Subscribe{ID: p.ID, Props: p.Props, Filters: p.Filters}.Append(nil, v)
	case UNSUBSCRIBE:
		u := Unsubscribe{ID: p.ID, Props: p.Props}
		for _, f := range p.Filters {
			u.Filters = append(u.Filters, f.Filter)
		}
		return u.Append(nil, v)
	case SUBACK, UNSUBACK:
		return Suback{Unsub: p.Type == UNSUBACK, ID: p.ID, Props: p.Props, Codes: p.Codes}.Append(nil, v)
	case PINGREQ, PINGRESP:
		return Ping{Response: p.Type == PINGRESP}.Append(nil)
	case DISCONNECT:
		return Disconnect{Code: p.Code, Props: p.Props}.Append(nil, v)
	case AUTH:
		return Auth{Code: p.Code, Props: p.Props}.Append(nil)
	}
	return Ack{Type: p.Type, ID: p.ID, Code: p.Code, Props: p.Props}.Append(nil, v)
}

func TestWhatIsEncodedIsDecodedAgain(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		for _, b := range samples(v) {
			header, body, size, err := Next(b)
			if err != nil || size != len(b) {
				t.Fatalf("% X: size %d, %v", b, size, err)
			}
			if Type(header>>4) == AUTH && v < V5 {
				continue
			}
			p, err := Decode(v, header, body)
			if err != nil {
				t.Errorf("v%s % X: %v", v, b, err)
				continue
			}
			if again := encode(v, p); !bytes.Equal(again, b) {
				t.Errorf("v%s %s:\n got % X\nwant % X", v, p, again, b)
			}
			for n := range body {
				if short, err := Decode(v, header, body[:n]); err == nil && len(encode(v, short)) > n+5 {
					t.Errorf("v%s %s cut to %d bytes decodes to %s", v, p, n, short)
				}
			}
		}
	}
}

func TestMalformedPacketsAreRefused(t *testing.T) {
	for name, b := range map[string]string{
		"type 0":                              "\x00\x00",
		"QoS 3":                               "\x36\x06\x00\x01a\x00\x01\x00",
		"packet identifier 0":                 "\x32\x06\x00\x01a\x00\x00\x00",
		"a topic that is not UTF-8":           "\x30\x04\x00\x01\xff\x00",
		"a property length over the end":      "\x30\x04\x00\x01a\x01",
		"an unknown property":                 "\x30\x06\x00\x01a\x02\x7f\x00",
		"a property cut short":                "\x30\x06\x00\x01a\x02\x02\x00",
		"five bytes of property length":       "\x30\x08\x00\x01a\x80\x80\x80\x80\x01",
		"bytes behind a PINGRESP":             "\xd0\x01\x00",
		"flags of a PUBREL":                   "\x60\x02\x00\x01",
		"a filter without options":            "\x82\x06\x00\x01\x00\x00\x01a",
		"reserved options":                    "\x82\x07\x00\x01\x00\x00\x01a\x40",
		"reserved CONNACK flags":              "\x20\x03\x02\x00\x00",
		"bytes behind the properties of AUTH": "\xf0\x03\x18\x00\x00",
	} {
		header, body, size, err := Next([]byte(b))
		if err != nil || size != len(b) {
			t.Fatalf("%s: size %d, %v", name, size, err)
		}
		if p, err := Decode(V5, header, body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func TestVariableByteIntegersHaveFourBytesAtMost(t *testing.T) {
	for _, n := range []uint32{0, 127, 128, 16383, 16384, 2097151, 2097152, MaxVarint} {
		b := AppendVarint(nil, n)
		if got, size := Varint(b); got != n || size != len(b) {
			t.Errorf("%d: got %d of %d bytes", n, got, size)
		}
		for i := range b {
			if _, size := Varint(b[:i]); size != 0 {
				t.Errorf("%d cut to %d bytes has size %d", n, i, size)
			}
		}
	}
	if _, size := Varint([]byte("\x80\x80\x80\x80\x01")); size != -1 {
		t.Errorf("five bytes: size %d", size)
	}
}

func TestAnAnnouncedLengthTakesNoMemory(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("\x30\xff\xff\xff\x7fabc"))
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Reset(strings.NewReader("\x30\xff\xff\xff\x7fabc"))
			if _, _, err := ReadFrame(r, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 2*bodyChunk {
		t.Errorf("%d bytes allocated", allocated)
	}
}

func TestFramesAreReadWhole(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 100_000)
	b := AppendFrame(AppendFrame(nil, 0x30, body), 0xD0, nil)
	r := bufio.NewReader(bytes.NewReader(b))
	header, got, err := ReadFrame(r, 0)
	if header != 0x30 || !bytes.Equal(got, body) || err != nil {
		t.Errorf("header %x, %d bytes, %v", header, len(got), err)
	}
	if header, got, err = ReadFrame(r, 0); header != 0xD0 || len(got) != 0 || err != nil {
		t.Errorf("header %x, %d bytes, %v", header, len(got), err)
	}
	if _, _, err = ReadFrame(r, 0); err != io.EOF {
		t.Errorf("error is %v", err)
	}
	if _, _, err := ReadFrame(bufio.NewReader(bytes.NewReader(b)), 1000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestVersionsHaveTheNamesOfMosquittosTools(t *testing.T) {
	for s, want := range map[string]Version{"mqttv31": V31, "3.1.1": V311, "5": V5, "mqttv5": V5} {
		if got, err := ParseVersion(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := ParseVersion("4"); err == nil {
		t.Error("4 is accepted")
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []Version{V31, V311, V5} {
		for _, b := range samples(v) {
			f.Add(byte(v), b)
		}
	}
	f.Fuzz(func(t *testing.T, level byte, b []byte) {
		v := Version(3 + level%3)
		header, body, size, err := Next(b)
		if err != nil || size == 0 {
			return
		}
		rh, rb, err := ReadFrame(bufio.NewReader(bytes.NewReader(b)), 0)
		if rh != header || !bytes.Equal(rb, body) || err != nil {
			t.Fatalf("ReadFrame and Next differ: %v", err)
		}
		p, err := Decode(v, header, body)
		_ = p.String()
		if err != nil {
			return
		}
		// What was decoded means the same when it is encoded and decoded again.
		again := encode(v, p)
		header2, body2, _, err := Next(again)
		if err != nil {
			t.Fatal(err)
		}
		p2, err := Decode(v, header2, body2)
		if err != nil {
			t.Fatalf("%s: encoded again: %v", p, err)
		}
		if diff := cmp.Diff(p, p2, cmp.Transformer("empty", func(b []byte) string { return string(b) })); diff != "" {
			t.Fatalf("%s\n%s", p, diff)
		}
	})
}
