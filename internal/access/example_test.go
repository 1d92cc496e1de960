package access_test

import (
	"context"
	"fmt"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/access"
)

func ExampleNew() {
	a, err := access.New(access.Config{
		Users: []access.User{{Name: "alice", Password: access.Hash([]byte("secret"))}},
		Rules: []access.Rule{{User: "alice", Allow: []string{"site/%c/#"}}},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	id, err := a.Authenticate(context.Background(), bridge.Credentials{
		User: "alice", HasUser: true, Password: []byte("secret"), ClientID: "pump-1",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Permissions.Explain(bridge.Write, "site/pump-1/flow"))
	fmt.Println(id.Permissions.Explain(bridge.Write, "site/pump-2/flow"))
	// Output:
	// true users.rules[0].allow[0]: site/%c/#
	// false no rule of users.rules lets user "alice" with client id "pump-1" write "site/pump-2/flow": what no rule gives is denied
}

func ExampleNewScramClient() {
	a, err := access.New(access.Config{
		Users: []access.User{{Name: "alice", Password: access.HashSCRAM([]byte("secret"))}},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, server := access.NewScramClient("alice", []byte("secret")), a.SCRAM()
	var message []byte
	for {
		answer, done, err := client.Step(message)
		if err != nil || done {
			fmt.Println("client:", done, err)
			return
		}
		var user string
		if message, done, user, err = server.Step(answer); err != nil || done {
			fmt.Println("server:", user, err)
		}
	}
	// Output:
	// server: alice <nil>
	// client: true <nil>
}
