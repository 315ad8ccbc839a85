package seal

import (
	"fmt"
	"io"
)

// What a Keyring and a key print as, in every way that there is: fmt's verbs, JSON, text (and so YAML and XML), and with them the loggers.
const (
	hiddenRing = "[keyring]"
	hiddenKey  = "[key]"
)

// String and the methods below keep a Keyring out of logs, errors and answers.
func (k Keyring) String() string               { return hiddenRing }
func (k Keyring) GoString() string             { return hiddenRing }
func (k Keyring) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, hiddenRing) }
func (k Keyring) MarshalJSON() ([]byte, error) { return []byte(`"` + hiddenRing + `"`), nil }
func (k Keyring) MarshalText() ([]byte, error) { return []byte(hiddenRing), nil }

func (k *key) String() string               { return hiddenKey }
func (k *key) GoString() string             { return hiddenKey }
func (k *key) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, hiddenKey) }
func (k *key) MarshalJSON() ([]byte, error) { return []byte(`"` + hiddenKey + `"`), nil }
func (k *key) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }
