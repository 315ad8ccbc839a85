package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var hosts = []string{"api.twilio.com", "api.resend.com"}

func generate(t testing.TB, now time.Time) *Authority {
	t.Helper()
	a, err := Generate(hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verifies says whether a client that trusts only root takes what the leaf's server sends, as host, at the time.
func verifies(root *Authority, sent *tls.Certificate, host string, at time.Time) error {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(root.Root())
	for _, der := range sent.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	_, err := sent.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool, Intermediates: between, CurrentTime: at})
	return err
}

func TestALeafIsGoodForItsHostAndForADay(t *testing.T) {
	now := time.Now()
	a := generate(t, now)
	c, err := NewLeaves(a, func() time.Time { return now }).For("api.twilio.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := verifies(a, c, "api.twilio.com", now); err != nil {
		t.Error(err)
	}
	if verifies(a, c, "api.resend.com", now) == nil {
		t.Error("good for another host")
	}
	if life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore); life > 24*time.Hour {
		t.Errorf("lives for %v", life)
	}
	if c.Leaf.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() || a.key.Curve != elliptic.P256() {
		t.Error("not on P-256")
	}
}

// forge signs a leaf for whatever it is told, as whoever has stolen the key would.
func forge(t *testing.T, a *Authority, tpl *x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl.SerialNumber, tpl.NotBefore, tpl.NotAfter = serial(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	tpl.KeyUsage, tpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c, err := sign(tpl, a.root, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// TestAStolenKeyVouchesForNobodyElse: a leaf for another host, signed by the CA's own key, is refused by Go's verifier and by OpenSSL.
func TestAStolenKeyVouchesForNobodyElse(t *testing.T) {
	a := generate(t, time.Now())
	dir := t.TempDir()
	root := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(root, a.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl := func(c *tls.Certificate, args ...string) (string, error) {
		file := filepath.Join(dir, "leaf.pem")
		if err := os.WriteFile(file, certPEM(c.Leaf), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("openssl", append(append([]string{"verify", "-CAfile", root, "-no-CApath"}, args...), file)...).CombinedOutput()
		return string(out), err
	}
	good := forge(t, a, &x509.Certificate{DNSNames: []string{"api.twilio.com"}})
	if err := verifies(a, good, "api.twilio.com", time.Now()); err != nil {
		t.Fatal(err)
	}
	if out, err := openssl(good, "-verify_hostname", "api.twilio.com"); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	bank := forge(t, a, &x509.Certificate{DNSNames: []string{"bank.example"}})
	if err := verifies(a, bank, "bank.example", time.Now()); !isConstraint(err) {
		t.Errorf("another host: %v", err)
	}
	if out, err := openssl(bank, "-verify_hostname", "bank.example"); err == nil || !strings.Contains(out, "permitted subtree violation") {
		t.Errorf("openssl, another host: %v\n%s", err, out)
	}
	address := forge(t, a, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err := verifies(a, address, "127.0.0.1", time.Now()); !isConstraint(err) {
		t.Errorf("an address: %v", err)
	}
	if out, err := openssl(address, "-verify_ip", "127.0.0.1"); err == nil || !strings.Contains(out, "subtree violation") {
		t.Errorf("openssl, an address: %v\n%s", err, out)
	}
}

func isConstraint(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName
}

func TestALeafIsMadeOnceAndAgainBeforeItEnds(t *testing.T) {
	now := time.Now()
	l := NewLeaves(generate(t, now), func() time.Time { return now })
	var all sync.WaitGroup
	got := make([]*tls.Certificate, 50)
	for i := range got {
		all.Go(func() { got[i], _ = l.For("api.twilio.com") })
	}
	all.Wait()
	for _, c := range got {
		if c == nil || c != got[0] {
			t.Fatal("more than one was made")
		}
	}
	first := got[0]
	now = first.Leaf.NotAfter.Add(-renewAt - time.Minute)
	if c, _ := l.For("api.twilio.com"); c != first {
		t.Error("made again too early")
	}
	now = first.Leaf.NotAfter.Add(-renewAt + time.Minute)
	c, err := l.For("api.twilio.com")
	if err != nil || c == first || !c.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("near its end: %v", err)
	}
	now = now.Add(72 * time.Hour)
	again, err := l.For("api.twilio.com")
	if err != nil || verifies(l.Authority(), again, "api.twilio.com", now) != nil {
		t.Errorf("an expired leaf was handed out: %v", err)
	}
}

func TestALeafIsNotMadeForAStrangerNorByADeadRoot(t *testing.T) {
	now := time.Now()
	l := NewLeaves(generate(t, now), func() time.Time { return now })
	if _, err := l.For("api.sendgrid.com"); !errors.Is(err, ErrUncovered) {
		t.Errorf("a host that it was not made for: %v", err)
	}
	if got := l.Authority().Uncovered([]string{"api.twilio.com", "api.sendgrid.com"}); !slices.Equal(got, []string{"api.sendgrid.com"}) {
		t.Errorf("uncovered: %v", got)
	}
	now = now.Add(rootLife - time.Hour)
	c, err := l.For("api.twilio.com")
	if err != nil || c.Leaf.NotAfter.After(l.Authority().Root().NotAfter) {
		t.Errorf("outlives its root: %v", err)
	}
	if again, _ := l.For("api.twilio.com"); again != c {
		t.Error("made at each handshake though none could last longer")
	}
	now = now.Add(2 * time.Hour)
	if _, err := l.For("api.twilio.com"); !errors.Is(err, ErrExpired) {
		t.Errorf("an expired root: %v", err)
	}
}

// TestARotationLeavesNobodyOutside: apps that trust the root before and apps that trust the new one are both served at once; the first for
// a while only, and not at all when the old key is not to be trusted.
func TestARotationLeavesNobodyOutside(t *testing.T) {
	now := time.Now()
	old := generate(t, now)
	next, err := old.Rotate(append(slices.Clone(hosts), "api.sendgrid.com"), now, true)
	if err != nil {
		t.Fatal(err)
	}
	l := NewLeaves(old, func() time.Time { return now })
	before, _ := l.For("api.twilio.com")
	l.SetAuthority(next)
	c, err := l.For("api.twilio.com")
	if err != nil || c == before {
		t.Fatalf("the old leaf stayed: %v", err)
	}
	if err := verifies(old, c, "api.twilio.com", now); err != nil {
		t.Errorf("by the old root: %v", err)
	}
	if err := verifies(next, c, "api.twilio.com", now); err != nil {
		t.Errorf("by the new root: %v", err)
	}
	added, err := l.For("api.sendgrid.com")
	if err != nil || verifies(next, added, "api.sendgrid.com", now) != nil {
		t.Errorf("a host that only the new one covers: %v", err)
	}
	if err := verifies(old, added, "api.sendgrid.com", now); !isConstraint(err) {
		t.Errorf("the old root's bounds do not hold for what it vouched for: %v", err)
	}
	now = now.Add(Overlap + time.Hour)
	late, err := l.For("api.twilio.com")
	if err != nil || len(late.Certificate) != 1 || verifies(old, late, "api.twilio.com", now) == nil {
		t.Errorf("the old root still counts: %v", err)
	}
	stolen, err := old.Rotate(hosts, time.Now(), false)
	if err != nil || stolen.cross != nil {
		t.Errorf("a root that is not trusted vouched for the next: %v", err)
	}
}

func TestAnAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("none is there: %v", err)
	}
	old := generate(t, time.Now())
	a, err := old.Rotate(hosts, time.Now(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, KeyFile)
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	b, err := Load(dir)
	if err != nil || !b.key.Equal(a.key) || !b.root.Equal(a.root) || !b.cross.Equal(a.cross) {
		t.Fatalf("not as it was: %v", err)
	}
	if err := a.Publish(dir, []byte("system")); err != nil {
		t.Fatal(err)
	}
	bundle, _ := os.ReadFile(filepath.Join(dir, BundleFile))
	if st, _ := os.Stat(filepath.Join(dir, RootFile)); st.Mode().Perm() != 0o644 || !bytes.Equal(bundle, append([]byte("system\n"), a.PEM()...)) {
		t.Errorf("published: %v\n%s", st.Mode(), bundle)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestABadFileIsRefused(t *testing.T) {
	a, other := generate(t, time.Now()), generate(t, time.Now())
	whole, _ := a.encode()
	key, root, _ := bytes.Cut(whole, []byte("-----BEGIN CERT"))
	root = append([]byte("-----BEGIN CERT"), root...)
	for name, c := range map[string]struct {
		content []byte
		mode    fs.FileMode
		want    string
	}{
		"readable by others": {whole, 0o640, "chmod 600"},
		"empty":              {nil, 0o600, "does not hold a private key and a certificate"},
		"no key":             {root, 0o600, "does not hold a private key and a certificate"},
		"no certificate":     {key, 0o600, "does not hold a private key and a certificate"},
		"another's":          {append(bytes.Clone(key), other.PEM()...), 0o600, "do not belong together"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, KeyFile)
		if err := errors.Join(os.WriteFile(path, c.content, c.mode), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
