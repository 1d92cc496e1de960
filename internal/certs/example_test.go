package certs_test

import (
	"fmt"
	"os"

	"github.com/isthmus-iot/isthmus/internal/certs"
)

func ExampleOpen() {
	folder, err := os.MkdirTemp("", "certs")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	authority, err := certs.Open(folder)
	if err != nil {
		fmt.Println(err)
		return
	}
	pair, err := authority.Server("gateway.local")
	if err != nil {
		fmt.Println(err)
		return
	}
	reloader, err := certs.NewReloader(certs.Config{Cert: pair.Cert, Key: pair.Key, ClientCA: authority.Cert()}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reloader.Current().Certificate.Leaf.VerifyHostname("gateway.local"))
	// Output: <nil>
}
