package keysource

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/seal"
)

func mustParse(t *testing.T, text string) *Source {
	t.Helper()
	s, err := Parse(text, t.TempDir())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// at is the fake's source with a keyset file.
func (f *fake) at(path string) *Source {
	f.t.Helper()
	return mustParse(f.t, f.source+"&keyset="+path)
}

func load(t *testing.T, s *Source) *seal.Keyring {
	t.Helper()
	k, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return k
}

// opens fails unless the source holds the keys that sealed.
func opens(t *testing.T, s *Source, sealed []byte) {
	t.Helper()
	if got, err := load(t, s).Open(nil, sealed, nil); err != nil || string(got) != "x" {
		t.Errorf("%s: %q, %v", s, got, err)
	}
}

func TestParse(t *testing.T) {
	for text, path := range map[string]string{
		"file:/etc/keys.json": "/etc/keys.json",
		"env:KEYWARD_KEY":     "",
		"awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab":              "DATA/keys.wrapped.json",
		"awskms://alias/team/keyward?region=eu-central-1&keyset=k.json":                                         "k.json",
		"awskms://1234abcd-12ab-34cd-56ef-1234567890ab?region=us-east-1":                                        "DATA/keys.wrapped.json",
		"awskms:///arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/keyward?endpoint=https://vpce-1.example": "DATA/keys.wrapped.json",
		"gcpkms://projects/acme.com:prod/locations/global/keyRings/r/cryptoKeys/k?keyset=/k.json":               "/k.json",
		"hcvault://vault.internal:8200/team/transit/keys/keyward?namespace=a/b&token_file=/t&ca=/ca.pem":        "DATA/keys.wrapped.json",
		"hcvault:///transit/keys/keyward":                           "DATA/keys.wrapped.json",
		"hcvault://127.0.0.1:8200/transit/keys/keyward?scheme=http": "DATA/keys.wrapped.json",
	} {
		s, err := Parse(text, "DATA")
		if err != nil || s.Path() != path || s.String() != text || s.Wrapped() != strings.Contains(text, "://") {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":           "must be file:PATH",
		"file:":      "comes a path",
		"env:":       "name of a variable",
		"env:a b":    "name of a variable",
		"awskms:abc": "must be file:PATH",
		"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=": "never the key itself",
		"awskms://":                                                  "the key's ARN",
		"awskms:///arn:aws:kms:x:1:key/y":                            "the key's ARN",
		"awskms://alias/k?regoin=x":                                  "regoin: unknown option",
		"awskms://alias/k?region=x&region=y":                         "given twice",
		"awskms://alias/k?endpoint=http://kms.x":                     "loopback",
		"awskms://alias/k?endpoint=https://u@x":                      "must be a URL",
		"awskms://alias/k?keyset=%zz":                                "cannot be read",
		"gcpkms://projects/p/locations/l/keyRings/r":                 "the key's name",
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/v1": "the key's name",
		"hcvault://vault/transit/encrypt/k":                          "the server, the engine and the key",
		"hcvault://vault/../keys/k":                                  "the server, the engine and the key",
		"hcvault://u:p@vault/transit/keys/k":                         "a host",
		"hcvault://vault/transit/keys/k?scheme=http":                 "plain http",
		"hcvault://vault/transit/keys/k?scheme=ftp":                  "scheme",
	} {
		_, err := Parse(text, "")
		if err == nil || !strings.Contains(err.Error(), want) || len(text) > 40 && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPlainSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	s := mustParse(t, "file:"+path)
	if _, err := s.Load(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	k := seal.Generate()
	sealed := k.Seal(nil, []byte("x"), nil)
	if err := s.Create(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	opens(t, s, sealed)
	if err := s.Create(t.Context(), seal.Generate()); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	t.Setenv("KEYSOURCE_TEST", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	env := mustParse(t, "env:KEYSOURCE_TEST")
	fail := errors.New("must not be called")
	for _, err := range []error{env.Create(t.Context(), k), env.Update(t.Context(), func(*seal.Keyring) error { return fail })} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%v", err)
		}
	}
	if id := load(t, env).PrimaryID(); !strings.HasPrefix(id, "env-") {
		t.Errorf("%q", id)
	}
}

// Of many who change a keyset at once none is lost.
func TestUpdatesWaitForEachOther(t *testing.T) {
	s := mustParse(t, "file:"+filepath.Join(t.TempDir(), "keys.json"))
	if err := s.Create(t.Context(), seal.Generate()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Update(t.Context(), func(k *seal.Keyring) error { k.Add(); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(load(t, s).Keys()); n != 21 {
		t.Errorf("%d keys", n)
	}
}

func TestWrapped(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		path := filepath.Join(t.TempDir(), "new", "keys.json")
		s := f.at(path)
		if _, err := s.Load(t.Context()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
		k := seal.Generate()
		sealed := k.Seal(nil, []byte("x"), nil)
		if err := s.Create(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		opens(t, s, sealed)
		if err := s.Create(t.Context(), seal.Generate()); !errors.Is(err, os.ErrExist) {
			t.Errorf("%v", err)
		}
		var added seal.KeyInfo
		if err := s.Update(t.Context(), func(k *seal.Keyring) error { added = k.Add(); return nil }); err != nil {
			t.Fatal(err)
		}
		opens(t, s, sealed)
		if keys := load(t, s).Keys(); len(keys) != 2 || keys[1].ID != added.ID {
			t.Errorf("%+v", keys)
		}
		// What is on the disk says nothing: no key, no id.
		text, err := os.ReadFile(path)
		plain, _ := k.AppendKeyset(nil)
		var w map[string]any
		if err != nil || json.Unmarshal(text, &w) != nil || w["wrapped_by"] != s.name() || strings.Contains(string(text), k.PrimaryID()) {
			t.Errorf("%s, %v", text, err)
		}
		if key := string(plain[bytes.Index(plain, []byte(`"key": "`))+8:][:44]); strings.Contains(string(text), key) {
			t.Error("the key is in the file")
		}
		if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", st.Mode())
		}
	})
}

func TestServiceRefuses(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		s := f.at(filepath.Join(t.TempDir(), "keys.json"))
		if err := s.Create(t.Context(), seal.Generate()); err != nil {
			t.Fatal(err)
		}
		for what, want := range map[fault]string{
			denied: "access denied", disabled: map[bool]string{true: "not allowed any more", false: "disabled"}[strings.HasPrefix(f.source, "hcvault")], noSuchKey: "no such key",
		} {
			f.is(what, -1)
			_, err := s.Load(t.Context())
			if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s.name()) || !strings.Contains(err.Error(), s.Path()) {
				t.Errorf("%v", err)
			}
			if n := f.called(); n != 1 {
				t.Errorf("%d calls after a refusal: %v", n, err)
			}
		}
		f.is(well, 0)
		f.changeKey()
		if _, err := s.Load(t.Context()); !errors.Is(err, errWrongKey) {
			t.Errorf("another key: %v", err)
		}
	})
}

func TestServiceIsAway(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		s := f.at(filepath.Join(t.TempDir(), "keys.json"))
		if err := s.Create(t.Context(), seal.Generate()); err != nil {
			t.Fatal(err)
		}
		for _, what := range []fault{throttled, broken, cut, nonsense} {
			f.is(what, 2) // and then it is well
			if _, err := s.Load(t.Context()); err != nil {
				t.Errorf("after two faults of kind %d: %v", what, err)
			}
			// As long as it is away it is asked again, with pauses that grow. Who waits for it decides for how long.
			f.is(what, -1)
			ctx, cancel := context.WithCancel(t.Context())
			began, over := time.Now(), make(chan struct{})
			go func() {
				defer close(over)
				for ctx.Err() == nil && f.called() < 4 {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			_, err := s.Load(ctx)
			took := time.Since(began)
			cancel()
			<-over
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), s.name()) {
				t.Errorf("fault of kind %d: %v", what, err)
			}
			if n := f.called(); n != 4 || took < 350*time.Millisecond { // half of 100, 200 and 400 ms
				t.Errorf("%d attempts within %v", n, took)
			}
		}
		f.server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Load(ctx); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("nobody there: %v", err)
		}
	})
}

// The end of patience, which cuts the last attempt short, does not take the place of what the service said.
func TestReasonOutlivesPatience(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	_, err := try(ctx, func(ctx context.Context) ([]byte, error) {
		if attempts++; attempts == 1 {
			return nil, unavailable("Vault is sealed: unseal it")
		}
		cancel()
		return nil, unavailable(whyNot(ctx.Err()))
	})
	if attempts < 2 || err == nil || !strings.Contains(err.Error(), "unseal it") {
		t.Errorf("after %d attempts: %v", attempts, err)
	}
}

// A change that cannot be wrapped, or not unwrapped again, leaves the keyset as it was.
func TestFailedUpdateChangesNothing(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		s := f.at(filepath.Join(t.TempDir(), "keys.json"))
		k := seal.Generate()
		sealed := k.Seal(nil, []byte("x"), nil)
		if err := s.Create(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(s.Path())
		for calls, why := range []string{"no reading", "no wrapping", "wrapping and no unwrapping"} {
			f.isAfter(calls, denied)
			err := s.Update(t.Context(), func(k *seal.Keyring) error { k.Add(); return nil })
			if !errors.Is(err, errDenied) {
				t.Errorf("%s: %v", why, err)
			}
			if strings.Contains(err.Error(), f.last) {
				t.Errorf("%s: the error quotes what was sent", why)
			}
		}
		f.is(well, 0)
		if after, _ := os.ReadFile(s.Path()); !bytes.Equal(before, after) {
			t.Error("the file has changed")
		}
		opens(t, s, sealed)
	})
}

func TestRewrap(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		dir := t.TempDir()
		plain := mustParse(t, "file:"+filepath.Join(dir, "keys.json"))
		k := seal.Generate()
		sealed := k.Seal(nil, []byte("x"), nil)
		if err := plain.Create(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		s := f.at(filepath.Join(dir, "wrapped.json"))
		if err := plain.Rewrap(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		opens(t, s, sealed)
		before, _ := os.ReadFile(s.Path())
		if err := s.Rewrap(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if after, _ := os.ReadFile(s.Path()); bytes.Equal(before, after) {
			t.Error("nothing was wrapped anew")
		}
		opens(t, s, sealed)
		if err := s.Rewrap(t.Context(), plain); !errors.Is(err, os.ErrExist) {
			t.Errorf("over another keyset: %v", err)
		}
		back := mustParse(t, "file:"+s.Path())
		if err := s.Rewrap(t.Context(), back); err != nil {
			t.Fatal(err)
		}
		opens(t, back, sealed)
		if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "not wrapped") {
			t.Errorf("a plain keyset where a wrapped one belongs: %v", err)
		}
	})
}

func TestDamagedWrappedKeysets(t *testing.T) {
	f := fakeVault(t)
	s := f.at(filepath.Join(t.TempDir(), "keys.json"))
	if err := s.Create(t.Context(), seal.Generate()); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(s.Path())
	for what, change := range map[string]func(w *wrapped){
		"version":                  func(w *wrapped) { w.Version = 2 },
		"data_key or keyset":       func(w *wrapped) { w.Keyset = nil },
		"keyset in it is damaged":  func(w *wrapped) { w.Keyset[20] ^= 1 },
		"wrapped by another key":   func(w *wrapped) { w.DataKey = []byte("vault:v1:c2VhbGVk") },
		"wrapped by hcvault://old": func(w *wrapped) { w.DataKey, w.WrappedBy = []byte("vault:v1:c2VhbGVk"), "hcvault://old" },
	} {
		var w wrapped
		if err := json.Unmarshal(good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		text, _ := json.Marshal(w)
		if err := os.WriteFile(s.Path(), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q: %v", what, err)
		}
	}
}

func TestVaultFromTheEnvironment(t *testing.T) {
	f := fakeVault(t)
	s := mustParse(t, "hcvault:///transit/keys/keyward?keyset="+filepath.Join(t.TempDir(), "keys.json"))
	k := seal.Generate()
	for _, step := range []struct{ name, value, want string }{
		{"VAULT_ADDR", "", "VAULT_ADDR is not set"},
		{"VAULT_ADDR", "http://vault.internal:8200", "plain http"},
		{"VAULT_ADDR", f.server.URL + "/", "no Vault token"},
		{"VAULT_TOKEN", "hvs.fake", ""},
	} {
		t.Setenv("HOME", t.TempDir())
		t.Setenv("VAULT_NAMESPACE", "team")
		t.Setenv(step.name, step.value)
		err := s.Create(t.Context(), k)
		if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%v: %v", step, err)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	aws, gcp := fakeAWS(t), fakeGCP(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
	for f, want := range map[*fake]string{aws: "no AWS credentials were found", gcp: "no Google credentials were found"} {
		err := f.at(filepath.Join(t.TempDir(), "keys.json")).Create(t.Context(), seal.Generate())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
}
