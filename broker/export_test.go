package broker

import "github.com/isthmus-iot/isthmus/bridge"

// PublishCode is what a PUBACK or PUBREC says for r.
func PublishCode(r bridge.Reason) byte { return wire[r].publish }

// SubscribeCode is what a SUBACK says for r.
func SubscribeCode(r bridge.Reason) byte { return wire[r].subscribe }

// LetFlap lets take-overs follow each other as fast as they will. Called before there is a connection.
func (s *Server) LetFlap() { s.letFlap = true }
