package wire

import (
	"errors"
	"fmt"
	"io"
)

// Varint reads a variable byte integer. size is the number of bytes it took, 0 if b is too short, -1 if it is longer than
// four bytes.
func Varint(b []byte) (n uint32, size int) {
	for i := range min(len(b), 4) {
		n |= uint32(b[i]&0x7F) << (7 * i)
		if b[i] < 0x80 {
			return n, i + 1
		}
	}
	if len(b) >= 4 {
		return 0, -1
	}
	return 0, 0
}

// ErrTooLarge is the cause of the error for a packet over the limit.
var ErrTooLarge = errors.New("packet too large")

// Next finds the first frame in b: header is its first byte, body a view. size is the number of bytes of the whole frame, 0
// if b does not hold all of it.
func Next(b []byte) (header byte, body []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	n, used := Varint(b[1:])
	switch {
	case used < 0:
		return 0, nil, 0, fmt.Errorf("%w: remaining length of more than four bytes", ErrMalformed)
	case used == 0 || len(b) < 1+used+int(n):
		return 0, nil, 0, nil
	}
	size = 1 + used + int(n)
	return b[0], b[1+used : size : size], size, nil
}

// ReadFrame reads one frame of at most limit bytes of body (0: [MaxVarint]). The body is the caller's. Memory follows the
// bytes that arrive, not the length that was announced.
func ReadFrame(r interface {
	io.Reader
	io.ByteReader
}, limit int) (header byte, body []byte, err error) {
	header, err = r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	var length []byte
	for used := 0; used == 0; {
		b, err := r.ReadByte()
		if err != nil {
			return 0, nil, eof(err)
		}
		length = append(length, b)
		var n uint32
		if n, used = Varint(length); used < 0 {
			return 0, nil, fmt.Errorf("%w: remaining length of more than four bytes", ErrMalformed)
		}
		if used > 0 {
			body, err = readBody(r, int(n), limit)
			return header, body, err
		}
	}
	panic("unreachable: a variable byte integer ends or fails within four bytes")
}

// bodyChunk is how much memory is taken ahead of the bytes.
const bodyChunk = 16 << 10

func readBody(r io.Reader, n, limit int) ([]byte, error) {
	if limit > 0 && n > limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, n, limit)
	}
	body := make([]byte, 0, min(n, bodyChunk))
	for len(body) < n {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(n, 2*cap(body)))
			copy(grown, body)
			body = grown
		}
		got, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+got]
		if err != nil && len(body) < n {
			return nil, eof(err)
		}
	}
	return body, nil
}

// eof turns an end in the middle of a frame into an error that says so.
func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
