package bridge

import (
	"errors"
	"fmt"
)

// Reason is the closed list of outcomes. Every endpoint has one total table from Reason to its wire code.
type Reason uint8

// The reasons.
const (
	OK                   Reason = iota
	NotAuthorized               // the ACL forbids it
	Unauthenticated             // nobody, or a wrong password
	BadTopic                    // not a topic name, or over a limit on topics
	BadFilter                   // not a topic filter, or over a limit on filters
	TooLarge                    // packet, payload or property over its limit
	QuotaExceeded               // a count limit of the client is reached
	RateLimited                 // too fast
	Busy                        // overloaded at the moment
	Expired                     // its lifetime has passed
	Loop                        // it crossed too many links
	Unavailable                 // storage or a remote is not available, or the server shuts down
	Unsupported                 // switched off or unknown here
	BadPayload                  // payload is not what its format says
	NoMatchingSubscriber        // accepted, but nobody was subscribed
	Internal                    // our fault
	reasonCount
)

// Reasons lists every Reason, for tests that a table is total.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

var reasonNames = [reasonCount]string{
	"ok", "not authorized", "unauthenticated", "bad topic", "bad filter", "too large", "quota exceeded", "rate limited", "busy",
	"expired", "loop", "unavailable", "unsupported", "bad payload", "no matching subscriber", "internal",
}

// String is the reason's name as logs, metrics and reason strings have it.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Error is a refusal or a failure. Reason is for decisions, the rest for people.
type Error struct {
	Op     string // what was being done; may be empty
	Topic  string // topic or filter concerned; may be empty
	Reason Reason
	Err    error // cause; may be nil
}

// Refuse makes an Error from a reason and a text.
func Refuse(r Reason, text string) *Error { return &Error{Reason: r, Err: errors.New(text)} }

func (e *Error) Error() string {
	s := e.Reason.String()
	if e.Err != nil {
		s = e.Err.Error()
	}
	if e.Topic != "" {
		s = fmt.Sprintf("%q: %s", e.Topic, s)
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf finds the Reason of err however it is wrapped: OK for nil, Internal where there is none.
func ReasonOf(err error) Reason {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Internal
}
