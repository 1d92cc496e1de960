package access

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
)

// ScramClient is the client side of one SCRAM-SHA-256 exchange without channel binding. It is not safe for concurrent use.
type ScramClient struct {
	user     string
	password []byte
	nonce    string
	step     int

	exchange  string
	signature []byte // what the server must prove with
}

// NewScramClient begins an exchange. The password is kept until the exchange ends.
func NewScramClient(user string, password []byte) *ScramClient {
	return &ScramClient{user: user, password: password, nonce: rand.Text()}
}

// Step takes the server's message, nil at first, and returns what to answer. done is true when the server has proven that it
// knows the password too; a client must not go on without. A server that asks for less than 4096 iterations, to guess the
// password easily, or for more than 2,000,000 is refused.
func (c *ScramClient) Step(data []byte) (answer []byte, done bool, err error) {
	c.step++
	switch {
	case len(data) > maxScramBytes:
		err = errors.New("message is too long")
	case c.step == 1:
		answer = []byte("n,," + c.first())
	case c.step == 2:
		answer, err = c.final(string(data))
	case c.step == 3:
		done, err = c.check(string(data))
	default:
		err = errors.New("exchange has ended")
	}
	if err != nil {
		c.step = 3 // nothing goes on from here
		return nil, false, errors.New(scramMethod + ": " + err.Error())
	}
	return answer, done, nil
}

func (c *ScramClient) first() string {
	return "n=" + strings.NewReplacer(",", "=2C", "=", "=3D").Replace(c.user) + ",r=" + c.nonce
}

func (c *ScramClient) final(message string) ([]byte, error) {
	f := strings.Split(message, ",")
	if len(f) < 3 || !strings.HasPrefix(f[0], "r=") || !strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return nil, errors.New("server's message is not r=<nonce>,s=<salt>,i=<iterations>")
	}
	nonce := f[0][2:]
	if !isNonce(nonce) || !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce) {
		return nil, errors.New("server's nonce does not continue ours")
	}
	salt, err := base64.StdEncoding.DecodeString(f[1][2:])
	if err != nil || len(salt) == 0 {
		return nil, errors.New("server's salt is not base64")
	}
	n, err := number(f[2][2:], minScramIterations, maxIterations)
	if err != nil {
		return nil, errors.New("server's iterations " + err.Error())
	}
	salted, err := pbkdf2.Key(sha256.New, string(c.password), salt, n, sha256.Size)
	if err != nil {
		return nil, err
	}
	bare := "c=biws,r=" + nonce // biws is base64 of "n,,"
	c.exchange = c.first() + "," + message + "," + bare
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	subtle.XORBytes(key, key, mac(stored[:], c.exchange))
	c.signature = mac(mac(salted, "Server Key"), c.exchange)
	c.password = nil
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(key)), nil
}

func (c *ScramClient) check(message string) (bool, error) {
	field, _, _ := strings.Cut(message, ",")
	if text, ok := strings.CutPrefix(field, "e="); ok {
		return false, errors.New("server refuses: " + text)
	}
	text, ok := strings.CutPrefix(field, "v=")
	signature, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || subtle.ConstantTimeCompare(signature, c.signature) != 1 {
		return false, errors.New("server does not know the password: it may be another")
	}
	return true, nil
}
