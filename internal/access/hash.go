package access

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a line of a password file may ask for. A check at the limit takes about a second of one core.
const (
	maxArgonMemory = 256 << 10 // KiB
	maxArgonPasses = 32
	maxArgonLanes  = 16
	maxArgonWork   = 1 << 20 // KiB times passes
	maxIterations  = 2_000_000
	maxSaltBytes   = 64
	maxHashBytes   = 64
)

// What is written. Argon2id as OWASP and RFC 9106 have it for small memory; SCRAM is computed by clients too, which may be
// small, so its iterations are a compromise above RFC 7677's minimum.
const (
	argonMemory     = 19456 // KiB
	argonPasses     = 2
	argonLanes      = 1
	scramIterations = 15_000
	saltBytes       = 16
	argonBytes      = 32
)

// minScramIterations is RFC 7677's; clients may refuse less.
const minScramIterations = 4096

// hash is one stored password.
type hash interface {
	// verify reports whether password is the one. It takes the same time for every password of one length.
	verify(password []byte) bool
	// slow reports whether verify takes long enough to be limited.
	slow() bool
}

// Hash makes the argon2id hash of a password, as password files and [User].Password have it. It needs 19 MiB and some tens of
// milliseconds.
func Hash(password []byte) string {
	salt := randomBytes(saltBytes)
	sum := argon2.IDKey(password, salt, argonPasses, argonMemory, argonLanes, argonBytes)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonLanes, b64(salt), b64(sum))
}

// HashSCRAM makes the SCRAM-SHA-256 credential of a password, as password files and [User].SCRAM have it.
func HashSCRAM(password []byte) string {
	return newScramHash(password, randomBytes(saltBytes), scramIterations).String()
}

// parseHash reads one stored password. offset says where in s a mistake is.
func parseHash(s string) (h hash, offset int, err error) {
	if strings.HasPrefix(s, scramMethod+"$") {
		return parseScramHash(s)
	}
	f := strings.Split(s, "$")
	at := func(i int) int { // where field i begins
		n := 0
		for _, x := range f[:i] {
			n += len(x) + 1
		}
		return n
	}
	switch {
	case s == "":
		return nil, 0, errors.New("password hash is missing: set one with isthmus passwd")
	case f[0] != "" || len(f) < 2:
		return nil, 0, errors.New("password is not hashed, or in a form that is unknown: set it with isthmus passwd, or convert a file of plain passwords with mosquitto_passwd -U")
	case f[1] == "6" && len(f) == 4:
		salt, err := decode(base64.StdEncoding, f[2], 1, maxSaltBytes)
		if err != nil {
			return nil, at(2), fmt.Errorf("salt %w", err)
		}
		sum, err := decode(base64.StdEncoding, f[3], sha512.Size, sha512.Size)
		if err != nil {
			return nil, at(3), fmt.Errorf("hash %w", err)
		}
		return &sha512Hash{salt: salt, sum: sum}, 0, nil
	case f[1] == "7" && len(f) == 5:
		n, err := number(f[2], 1, maxIterations)
		if err != nil {
			return nil, at(2), fmt.Errorf("iterations %w", err)
		}
		salt, err := decode(base64.StdEncoding, f[3], 1, maxSaltBytes)
		if err != nil {
			return nil, at(3), fmt.Errorf("salt %w", err)
		}
		sum, err := decode(base64.StdEncoding, f[4], sha512.Size, sha512.Size)
		if err != nil {
			return nil, at(4), fmt.Errorf("hash %w", err)
		}
		return &pbkdf2Hash{iterations: n, salt: salt, sum: sum}, 0, nil
	case f[1] == "argon2id" && len(f) == 6:
		if f[2] != "v=19" {
			return nil, at(2), fmt.Errorf("argon2 version %q is unknown, want v=19", f[2])
		}
		a := &argonHash{}
		if err := a.parameters(f[3]); err != nil {
			return nil, at(3), err
		}
		if a.salt, err = decode(base64.RawStdEncoding, f[4], 8, maxSaltBytes); err != nil {
			return nil, at(4), fmt.Errorf("salt %w", err)
		}
		if a.sum, err = decode(base64.RawStdEncoding, f[5], 16, maxHashBytes); err != nil {
			return nil, at(5), fmt.Errorf("hash %w", err)
		}
		return a, 0, nil
	case f[1] == "6" || f[1] == "7" || f[1] == "argon2id":
		return nil, 0, fmt.Errorf("password hash of form $%s$ has %d parts: it is incomplete or has a '$' too many; set it anew with isthmus passwd", f[1], len(f)-1)
	}
	return nil, at(1), fmt.Errorf("password hash of form $%s$ is unknown, want $6$, $7$, $argon2id$ or %s$", f[1], scramMethod)
}

// sha512Hash is what mosquitto_passwd wrote until 1.6.
type sha512Hash struct{ salt, sum []byte }

func (h *sha512Hash) slow() bool { return false }

func (h *sha512Hash) verify(password []byte) bool {
	d := sha512.New()
	d.Write(password)
	d.Write(h.salt)
	return subtle.ConstantTimeCompare(d.Sum(nil), h.sum) == 1
}

// pbkdf2Hash is what mosquitto_passwd writes.
type pbkdf2Hash struct {
	iterations int
	salt, sum  []byte
}

func (h *pbkdf2Hash) slow() bool { return true }

func (h *pbkdf2Hash) verify(password []byte) bool {
	sum, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, sha512.Size)
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// argonHash is what isthmus passwd writes.
type argonHash struct {
	memory, passes uint32
	lanes          uint8
	salt, sum      []byte
}

func (h *argonHash) slow() bool { return true }

func (h *argonHash) verify(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// parameters reads "m=..,t=..,p=..", in this order, as the PHC form has it.
func (h *argonHash) parameters(s string) error {
	f := strings.Split(s, ",")
	if len(f) != 3 || !strings.HasPrefix(f[0], "m=") || !strings.HasPrefix(f[1], "t=") || !strings.HasPrefix(f[2], "p=") {
		return fmt.Errorf("argon2 parameters %q are not m=<KiB>,t=<passes>,p=<lanes>", s)
	}
	m, err := number(f[0][2:], 8, maxArgonMemory)
	if err != nil {
		return fmt.Errorf("argon2 memory in KiB %w", err)
	}
	t, err := number(f[1][2:], 1, maxArgonPasses)
	if err != nil {
		return fmt.Errorf("argon2 passes %w", err)
	}
	p, err := number(f[2][2:], 1, maxArgonLanes)
	if err != nil {
		return fmt.Errorf("argon2 lanes %w", err)
	}
	switch {
	case m < 8*p:
		return fmt.Errorf("argon2 memory of %d KiB is below 8 for each of %d lanes", m, p)
	case m*t > maxArgonWork:
		return fmt.Errorf("argon2 memory of %d KiB in %d passes is too much work, at most %d together", m, t, maxArgonWork)
	}
	h.memory, h.passes, h.lanes = uint32(m), uint32(t), uint8(p)
	return nil
}

// scramHash is what a SCRAM-SHA-256 exchange needs to know of a password.
type scramHash struct {
	iterations           int
	salt                 []byte
	storedKey, serverKey []byte
}

func newScramHash(password, salt []byte, iterations int) *scramHash {
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, sha256.Size)
	if err != nil {
		panic("access: PBKDF2 refused fixed parameters: " + err.Error()) // only with a policy that forbids it altogether
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return &scramHash{iterations: iterations, salt: salt, storedKey: stored[:], serverKey: mac(salted, "Server Key")}
}

// parseScramHash reads the form of RFC 5803 as PostgreSQL writes it.
func parseScramHash(s string) (h hash, offset int, err error) {
	f := strings.FieldsFunc(s, func(r rune) bool { return r == '$' || r == ':' })
	if len(f) != 5 || s != f[0]+"$"+f[1]+":"+f[2]+"$"+f[3]+":"+f[4] {
		return nil, 0, errors.New("SCRAM credential is not SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")
	}
	c := &scramHash{}
	offset = len(f[0]) + 1
	if c.iterations, err = number(f[1], minScramIterations, maxIterations); err != nil {
		return nil, offset, fmt.Errorf("iterations %w", err)
	}
	for i, part := range []struct {
		name     string
		to       *[]byte
		min, max int
	}{{"salt", &c.salt, 1, maxSaltBytes}, {"stored key", &c.storedKey, 32, 32}, {"server key", &c.serverKey, 32, 32}} {
		offset += len(f[i+1]) + 1
		if *part.to, err = decode(base64.StdEncoding, f[i+2], part.min, part.max); err != nil {
			return nil, offset, fmt.Errorf("%s %w", part.name, err)
		}
	}
	return c, 0, nil
}

// String is the credential as password files have it.
func (h *scramHash) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramMethod, h.iterations, b64(h.salt), b64(h.storedKey), b64(h.serverKey))
}

func (h *scramHash) slow() bool { return true }

func (h *scramHash) verify(password []byte) bool {
	salted, err := pbkdf2.Key(sha256.New, string(password), h.salt, h.iterations, sha256.Size)
	return err == nil && subtle.ConstantTimeCompare(mac(salted, "Server Key"), h.serverKey) == 1
}

// mac is HMAC-SHA-256.
func mac(key []byte, parts ...string) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// decode reads base64 of a length in bytes.
func decode(e *base64.Encoding, s string, least, most int) ([]byte, error) {
	if len(s) > 2*most+4 {
		return nil, fmt.Errorf("is too long, at most %d bytes", most)
	}
	b, err := e.DecodeString(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not base64", s)
	case len(b) < least || len(b) > most:
		return nil, fmt.Errorf("has %d bytes, want %d to %d", len(b), least, most)
	}
	return b, nil
}

// number reads a decimal number within bounds.
func number(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || s[0] == '+' || n < least || n > most {
		return 0, fmt.Errorf("are %q, want %d to %d", s, least, most)
	}
	return n, nil
}
