package keysource

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	awsKeyARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	awsID     = "AKIDEXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// fakeAWS speaks the JSON protocol of AWS KMS and checks the signature of every request.
func fakeAWS(t *testing.T) *fake {
	t.Setenv("AWS_ACCESS_KEY_ID", awsID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", awsSecret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	f := newFake(t, answerAWS)
	f.source = "awskms:///" + awsKeyARN + "?endpoint=" + f.server.URL
	return f
}

func answerAWS(f *fake, w http.ResponseWriter, r *http.Request, body []byte, now fault) error {
	if err := checkSignature(r, body); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	refuse := func(status int, code, message string) error {
		return reply(w, status, map[string]string{"__type": code, "message": message})
	}
	switch now {
	case denied:
		return refuse(400, "AccessDeniedException", "User: arn:aws:sts::111122223333:assumed-role/app/i-1 is not authorized to perform: kms:Decrypt")
	case disabled:
		return refuse(400, "DisabledException", awsKeyARN+" is disabled.")
	case noSuchKey:
		return refuse(400, "NotFoundException", "Key '"+awsKeyARN+"' does not exist")
	case throttled:
		return refuse(400, "ThrottlingException", "Rate exceeded")
	case broken:
		return refuse(500, "KMSInternalException", "")
	}
	var in struct {
		KeyId             string
		Plaintext         []byte
		CiphertextBlob    []byte
		EncryptionContext map[string]string
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	if in.KeyId != awsKeyARN || in.EncryptionContext["keyward"] != "keyset" {
		return fmt.Errorf("key %q, context %v", in.KeyId, in.EncryptionContext)
	}
	context, _ := json.Marshal(in.EncryptionContext)
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "TrentService.Encrypt":
		if len(in.Plaintext) == 0 || len(in.Plaintext) > 4096 {
			return fmt.Errorf("%d bytes to encrypt: AWS takes 1 to 4096", len(in.Plaintext))
		}
		return reply(w, 200, map[string]any{"CiphertextBlob": f.encrypt(in.Plaintext, context), "KeyId": awsKeyARN})
	case "TrentService.Decrypt":
		plain, ok := f.decrypt(in.CiphertextBlob, context)
		if !ok {
			return refuse(400, "InvalidCiphertextException", "")
		}
		return reply(w, 200, map[string]any{"Plaintext": plain, "KeyId": awsKeyARN})
	default:
		return fmt.Errorf("target %q", target)
	}
}

// checkSignature signs the request as it came once more and compares (Signature Version 4).
func checkSignature(r *http.Request, body []byte) error {
	got := r.Header.Get("Authorization")
	_, signed, _ := strings.Cut(got, "SignedHeaders=")
	signed, _, _ = strings.Cut(signed, ",")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return err
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for _, name := range strings.Split(signed, ";") {
		if v := r.Header.Get(name); v != "" {
			again.Header.Set(name, v)
		}
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: awsID, SecretAccessKey: awsSecret}, again, hex.EncodeToString(sum[:]), "kms", "eu-central-1", at)
	if err != nil {
		return err
	}
	if again.Header.Get("Authorization") != got {
		return errors.New("the signature does not fit")
	}
	return nil
}
