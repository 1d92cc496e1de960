package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

// scramMethod is the name of the exchange, in MQTT's authentication method and in password files.
const scramMethod = "SCRAM-SHA-256"

const (
	maxScramBytes = 8 << 10 // of one message
	maxNonce      = 1024    // of one side, in bytes
)

// Exchange is the server side of one SCRAM-SHA-256 exchange (RFC 5802, RFC 7677) without channel binding. User names and
// passwords are taken as they are: what SASLprep would change outside ASCII is not changed. It is not safe for concurrent
// use.
//
// Unknown users go through with a salt that stays the same for one name, and fail at the end as a wrong password does.
type Exchange struct {
	access *Access
	nonce  string // ours
	step   int

	user     string
	account  *account // nil: unknown
	secret   *scramHash
	gs2      string // header of the first message, with the channel binding flag
	exchange string // the first two messages, as the proof covers them
	combined string // both nonces
}

// SCRAM begins an exchange.
func (a *Access) SCRAM() *Exchange { return &Exchange{access: a, nonce: rand.Text()} }

// Step takes the client's next message and returns the answer. The client's second message ends the exchange: done is true,
// user is who was proven and answer is the server's own proof. Every error carries NotAuthorized and ends the exchange.
func (e *Exchange) Step(data []byte) (answer []byte, done bool, user string, err error) {
	e.step++
	switch {
	case len(data) > maxScramBytes:
		err = errors.New("message is too long")
	case e.step == 1:
		answer, err = e.first(string(data))
	case e.step == 2:
		answer, err = e.final(string(data))
		done = err == nil
	default:
		err = errors.New("exchange has ended")
	}
	if err != nil {
		e.step = 2 // nothing goes on from here
		return nil, false, "", &bridge.Error{Op: scramMethod, Reason: bridge.NotAuthorized, Err: err}
	}
	if done {
		user = e.user
	}
	return answer, done, user, nil
}

// first takes client-first-message: "n,,n=user,r=nonce".
func (e *Exchange) first(message string) ([]byte, error) {
	flag, rest, _ := strings.Cut(message, ",")
	authzid, bare, ok := strings.Cut(rest, ",")
	switch {
	case strings.HasPrefix(flag, "p="):
		return nil, errors.New("channel binding is not offered")
	case !ok || flag != "n" && flag != "y":
		return nil, errors.New("first message does not begin with n,, or y,,")
	}
	e.gs2 = flag + "," + authzid + ","
	f := strings.Split(bare, ",")
	if strings.HasPrefix(bare, "m=") {
		return nil, errors.New("first message asks for an extension that is unknown")
	}
	if len(f) < 2 || !strings.HasPrefix(f[0], "n=") || !strings.HasPrefix(f[1], "r=") {
		return nil, errors.New("first message is not n=<user>,r=<nonce>")
	}
	name, ok := saslName(f[0][2:])
	if !ok {
		return nil, errors.New("user name is empty or not well-formed")
	}
	if as, ok := saslName(strings.TrimPrefix(authzid, "a=")); authzid != "" && (!ok || !strings.HasPrefix(authzid, "a=") || as != name) {
		return nil, errors.New("to act for another user is not possible")
	}
	nonce := f[1][2:]
	if !isNonce(nonce) {
		return nil, errors.New("nonce is not well-formed")
	}
	e.user, e.secret = name, e.access.fakeScram(name) // also for known users: it takes time
	if acc := e.access.accounts[name]; acc != nil && acc.scram != nil {
		e.account, e.secret = acc, acc.scram
	}
	e.combined = nonce + e.nonce
	answer := "r=" + e.combined + ",s=" + base64.StdEncoding.EncodeToString(e.secret.salt) + ",i=" + strconv.Itoa(e.secret.iterations)
	e.exchange = bare + "," + answer
	return []byte(answer), nil
}

// final takes client-final-message: "c=<header>,r=<both nonces>,p=<proof>".
func (e *Exchange) final(message string) ([]byte, error) {
	i := strings.LastIndex(message, ",p=")
	if i < 0 {
		return nil, errors.New("last message has no proof")
	}
	bare := message[:i]
	f := strings.Split(bare, ",")
	if len(f) < 2 || !strings.HasPrefix(f[0], "c=") || !strings.HasPrefix(f[1], "r=") {
		return nil, errors.New("last message is not c=<binding>,r=<nonce>,p=<proof>")
	}
	if binding, err := base64.StdEncoding.DecodeString(f[0][2:]); err != nil || string(binding) != e.gs2 {
		return nil, errors.New("channel binding is not that of the first message")
	}
	if subtle.ConstantTimeCompare([]byte(f[1][2:]), []byte(e.combined)) != 1 {
		return nil, errors.New("nonce is not the one of this exchange")
	}
	proof, err := base64.StdEncoding.DecodeString(message[i+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return nil, errors.New("proof is not well-formed")
	}
	e.exchange += "," + bare
	key := mac(e.secret.storedKey, e.exchange)
	subtle.XORBytes(key, key, proof)
	stored := sha256.Sum256(key)
	signature := mac(e.secret.serverKey, e.exchange)
	if subtle.ConstantTimeCompare(stored[:], e.secret.storedKey) != 1 || e.account == nil {
		return nil, errors.New("user name or password is wrong")
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), nil
}

// fakeScram is what an unknown user seems to have.
func (a *Access) fakeScram(user string) *scramHash {
	salt := a.process.digest(fakeSalt, user, nil)
	more := a.process.digest(fakeSalt, user, salt[:]) // salts are at most 64 bytes
	key := a.process.digest(fakeKey, user, nil)
	return &scramHash{
		iterations: a.scramIterations, salt: append(salt[:], more[:]...)[:a.scramSalt],
		storedKey: key[:], serverKey: key[:],
	}
}

// saslName undoes the escapes of ',' and '='.
func saslName(s string) (string, bool) {
	for i, part := range strings.Split(s, "=") {
		if i > 0 && !strings.HasPrefix(part, "2C") && !strings.HasPrefix(part, "3D") {
			return "", false
		}
	}
	s = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s)
	return s, s != "" && plainText(s)
}

// isNonce reports whether s is printable ASCII without a comma, as RFC 5802 has it.
func isNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}
