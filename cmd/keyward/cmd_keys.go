package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyward/keyward/seal"
)

// keySource is where the keys are: storage's flags, without those of the store.
type keySource struct {
	DataDir string `flag:"data-dir" arg:"DIR" default:".keyward" help:"folder of the generated key, made with mode 0700"`
	Key     string `flag:"key" arg:"SOURCE" default:"file:DATA_DIR/keys.json" help:"key source: env:NAME or file:PATH"`
}

// load checks the source and fills DATA_DIR into the default.
func (k *keySource) load(f *flags) error {
	s := storage{DataDir: k.DataDir, Key: k.Key}
	s.resolve(f)
	k.Key = s.Key
	var p problems
	s.validate(f, &p)
	return p.err()
}

// A keyItem is a key as it is listed: never the key itself.
type keyItem struct {
	ID        string     `json:"id"`
	State     string     `json:"state"`
	CreatedAt *time.Time `json:"created_at"`
}

func showKeys(keys *seal.Keyring) (listing, error) {
	l := listing{Items: []json.RawMessage{}}
	for _, k := range keys.Keys() {
		item := keyItem{ID: k.ID, State: string(k.State)}
		if !k.CreatedAt.IsZero() {
			item.CreatedAt = &k.CreatedAt
		}
		b, err := json.Marshal(item)
		if err != nil {
			return l, fmt.Errorf("encoding the keys: %w", err)
		}
		l.Items = append(l.Items, b)
	}
	return l, nil
}

func cmdKeysGenerate(_ context.Context, f *flags, args []string, std stdio) error {
	var source keySource
	f.bind(&source)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := source.load(f); err != nil {
		return err
	}
	path, ok := strings.CutPrefix(source.Key, "file:")
	if !ok {
		return usagef("%s: keys are generated into a file only; a variable can hold what `openssl rand -base64 32` prints", f.at("key"))
	}
	if !f.isSet("key") {
		if err := privateFolder(filepath.Dir(path)); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	keys := seal.Generate()
	defer keys.Wipe()
	if err := keys.WriteFile(path); err != nil {
		if _, there := os.Lstat(path); there == nil {
			return refused{err} // a key is never overwritten: without it no credential that it sealed can be opened
		}
		return err
	}
	if *asJSON {
		l, err := showKeys(keys)
		if err != nil {
			return err
		}
		return printJSON(std.out, l)
	}
	if _, err := fmt.Fprintf(std.out, "wrote key %s to %s\n", keys.PrimaryID(), path); err != nil {
		return err
	}
	fmt.Fprintln(std.err, "Keep a copy in a safe place: without it no credential can be opened.")
	return nil
}

func cmdKeysList(_ context.Context, f *flags, args []string, std stdio) error {
	var source keySource
	f.bind(&source)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := source.load(f); err != nil {
		return err
	}
	keys, err := seal.Load(source.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound{fmt.Errorf("no key at %s yet: keyward keys generate makes one, and so does the first start of keyward serve on SQLite", source.Key)}
	}
	if err != nil {
		return err
	}
	defer keys.Wipe()
	l, err := showKeys(keys)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, l)
	}
	return printTable(std, l, "no keys", "KEY STATE CREATED", func(k keyItem) []string {
		return []string{k.ID, k.State, ago(k.CreatedAt)}
	})
}
