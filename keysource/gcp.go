package keysource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// A gcpKMS is a symmetric key of Google Cloud KMS. Credentials are Google's application default ones: the file that
// GOOGLE_APPLICATION_CREDENTIALS names, the user's own, workload identity, the metadata server.
type gcpKMS struct {
	key      string // projects/P/locations/L/keyRings/R/cryptoKeys/K
	endpoint string
}

const (
	gcpEndpoint = "https://cloudkms.googleapis.com"
	gcpScope    = "https://www.googleapis.com/auth/cloudkms"
)

var gcpKey = regexp.MustCompile(`^projects/[A-Za-z0-9:._-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}$`)

func parseGCP(name string, o *options) (service, error) {
	key := strings.Trim(name, "/")
	if !gcpKey.MatchString(key) {
		return nil, errors.New("then comes the key's name, as gcpkms://projects/acme/locations/europe-west3/keyRings/keyward/cryptoKeys/keyset")
	}
	endpoint, err := o.endpoint()
	if endpoint == "" {
		endpoint = gcpEndpoint
	}
	return &gcpKMS{key, endpoint}, err
}

// gcpContext is authenticated with the data key.
var gcpContext = []byte("keyward keyset")

// crc32c guards what is sent and received against being changed on the way, as Google asks for: a CRC as a decimal number in a string.
func crc32c(b []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), 10)
}

func (k *gcpKMS) wrap(ctx context.Context, plain []byte) ([]byte, error) {
	var out struct {
		Ciphertext       []byte `json:"ciphertext"`
		CiphertextCRC32C string `json:"ciphertextCrc32c"`
	}
	err := k.call(ctx, "encrypt", map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(plain), "plaintextCrc32c": crc32c(plain),
		"additionalAuthenticatedData": base64.StdEncoding.EncodeToString(gcpContext), "additionalAuthenticatedDataCrc32c": crc32c(gcpContext),
	}, &out)
	if err == nil && out.CiphertextCRC32C != "" && out.CiphertextCRC32C != crc32c(out.Ciphertext) {
		err = unavailable("its answer was changed on the way")
	}
	return out.Ciphertext, err
}

func (k *gcpKMS) unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	var out struct {
		Plaintext       []byte `json:"plaintext"`
		PlaintextCRC32C string `json:"plaintextCrc32c"`
	}
	err := k.call(ctx, "decrypt", map[string]any{
		"ciphertext": base64.StdEncoding.EncodeToString(wrapped), "ciphertextCrc32c": crc32c(wrapped),
		"additionalAuthenticatedData": base64.StdEncoding.EncodeToString(gcpContext), "additionalAuthenticatedDataCrc32c": crc32c(gcpContext),
	}, &out)
	if err == nil && out.PlaintextCRC32C != "" && out.PlaintextCRC32C != crc32c(out.Plaintext) {
		err = unavailable("its answer was changed on the way")
	}
	return out.Plaintext, err
}

func (k *gcpKMS) call(ctx context.Context, verb string, in, out any) error {
	client := newClient(newTransport())
	token, err := gcpToken(ctx, client)
	if err != nil {
		return err
	}
	status, body, err := post(ctx, client, k.endpoint+"/v1/"+k.key+":"+verb, http.Header{"Authorization": {"Bearer " + token}}, in)
	if err != nil {
		return err
	}
	defer clear(body)
	if status != http.StatusOK {
		return explainGCP(status, body, verb == "decrypt")
	}
	if err := json.Unmarshal(body, out); err != nil {
		return unavailable("its answer is not what was expected")
	}
	return nil
}

// gcpToken is an access token. The library asks a metadata server without a context, and one that does not answer for a minute: it is left to end
// that by itself, so that nobody's patience depends on it.
func gcpToken(ctx context.Context, client *http.Client) (string, error) {
	type answer struct {
		token string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		asker := context.WithValue(ctx, oauth2.HTTPClient, client) // tokens are fetched with the same limits
		credentials, err := google.FindDefaultCredentials(asker, gcpScope)
		if err != nil {
			answered <- answer{err: fmt.Errorf("no Google credentials were found: set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached (%s)", printable(err.Error()))}
			return
		}
		token, err := credentials.TokenSource.Token()
		if err != nil {
			answered <- answer{err: explainToken(err)}
			return
		}
		answered <- answer{token: token.AccessToken}
	}()
	select {
	case a := <-answered:
		return a.token, a.err
	case <-ctx.Done():
		return "", unavailable("its credentials were not found in time")
	}
}

// explainToken says why there is no access token. The token endpoint's own words may hold what was sent.
func explainToken(err error) error {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) || refusal.Response == nil {
		return unavailable("no access token: " + whyNot(rootCause(err)))
	}
	if status := refusal.Response.StatusCode; status >= 500 || status == http.StatusTooManyRequests {
		return unavailable(fmt.Sprintf("no access token: status %d", status))
	}
	return refused(errDenied, "no access token: "+refusal.ErrorCode)
}

func explainGCP(status int, body []byte, quote bool) error {
	var e struct {
		Error struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &e) // a proxy in between may answer anything
	words := e.Error.Status
	if quote && e.Error.Message != "" {
		words += ": " + e.Error.Message
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return refused(errDenied, words)
	case status == http.StatusNotFound:
		return refused(errNoKey, words)
	case e.Error.Status == "FAILED_PRECONDITION":
		return refused(errDisabled, words)
	case status == http.StatusTooManyRequests:
		return unavailable("it asks to come again later (" + printable(words) + ")")
	case status >= 500, status < 400:
		return unavailable(printable(fmt.Sprintf("status %d %s", status, words)))
	case status == http.StatusBadRequest && quote: // a decryption
		return errWrongKey
	}
	return refused(errors.New("it refused"), fmt.Sprintf("status %d %s", status, words))
}
