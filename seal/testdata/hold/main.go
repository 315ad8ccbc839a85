// Hold loads the key source that it is given, says so, and holds the keyring until its input ends. Tests look into its memory.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/keyward/keyward/seal"
)

func main() {
	k, err := seal.Load(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("loaded")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if got, err := k.Open(nil, k.Seal(nil, []byte("x"), nil), nil); err != nil || string(got) != "x" {
		fmt.Println(err)
		os.Exit(1)
	}
}
