package ops

import (
	"fmt"
	"net/http"
)

// Readiness is a part of the gateway that can say whether it does its work.
type Readiness interface {
	Name() string
	Ready() error // nil: ready
}

// Check is what one part said.
type Check struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // empty: ready
}

// check asks all parts.
func check(parts []Readiness) (checks []Check, ready bool) {
	ready = true
	for _, p := range parts {
		c := Check{Name: p.Name()}
		if err := p.Ready(); err != nil {
			c.Error, ready = err.Error(), false
		}
		checks = append(checks, c)
	}
	return checks, ready
}

// livez answers as long as the process can.
func livez(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz answers 200 when every part is ready, else 503; with ?verbose it names them.
func readyz(parts func() []Readiness) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		checks, ready := check(parts())
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if r.URL.Query().Has("verbose") {
			for _, c := range checks {
				if c.Error == "" {
					fmt.Fprintf(w, "[+] %s ok\n", c.Name)
				} else {
					fmt.Fprintf(w, "[-] %s: %s\n", c.Name, c.Error)
				}
			}
		}
		if ready {
			fmt.Fprintln(w, "ok")
		} else {
			fmt.Fprintln(w, "not ready")
		}
	}
}
