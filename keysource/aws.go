package keysource

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// An awsKMS is a symmetric key of AWS KMS. Credentials are found as everywhere in AWS: environment, shared files, web identity, container,
// instance.
type awsKMS struct {
	key      string // ARN, alias or id
	region   string // empty: from the environment or the shared files
	endpoint string // empty: the region's own
}

var awsKey = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:(key/[A-Za-z0-9-]+|alias/[A-Za-z0-9/_-]+)|alias/[A-Za-z0-9/_-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32})$`)

func parseAWS(name string, o *options) (service, error) {
	key := strings.Trim(name, "/")
	m := awsKey.FindStringSubmatch(key)
	if m == nil {
		return nil, errors.New("then comes the key's ARN, alias or id, as awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab or awskms://alias/keyward?region=eu-central-1")
	}
	k := &awsKMS{key: key, region: o.take("region")}
	if k.region == "" {
		k.region = m[2]
	}
	var err error
	k.endpoint, err = o.endpoint()
	return k, err
}

// awsContext is authenticated with the data key, stands in CloudTrail, and can be made a condition of a key policy.
var awsContext = map[string]string{"keyward": "keyset"}

func (k *awsKMS) wrap(ctx context.Context, plain []byte) ([]byte, error) {
	client, err := k.client(ctx)
	if err != nil {
		return nil, err
	}
	out, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.key, Plaintext: plain, EncryptionContext: awsContext})
	if err != nil {
		return nil, explainAWS(err, false) // its words may repeat what was sent
	}
	return out.CiphertextBlob, nil
}

func (k *awsKMS) unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	client, err := k.client(ctx)
	if err != nil {
		return nil, err
	}
	// With the key's name: without it, AWS would take any key that the identity may use.
	out, err := client.Decrypt(ctx, &kms.DecryptInput{KeyId: &k.key, CiphertextBlob: wrapped, EncryptionContext: awsContext})
	if err != nil {
		return nil, explainAWS(err, true)
	}
	return out.Plaintext, nil
}

// client is made anew for each call: there are few of them, and credentials may have come in between.
func (k *awsKMS) client(ctx context.Context) (*kms.Client, error) {
	client := awshttp.NewBuildableClient().WithTimeout(attemptTimeout) // the SDK's own, which honours AWS_CA_BUNDLE
	c, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client), config.WithRegion(k.region),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })) // we try again ourselves, and say what is going on
	if err != nil {
		return nil, fmt.Errorf("reading AWS's configuration: %s", printable(err.Error()))
	}
	if c.Region == "" {
		return nil, errors.New("no region: add ?region=…, use the key's ARN, or set AWS_REGION")
	}
	if _, err := c.Credentials.Retrieve(ctx); ctx.Err() != nil {
		return nil, unavailable("its credentials were not found in time")
	} else if err != nil {
		return nil, fmt.Errorf("no AWS credentials were found in the environment, the shared files, the container or the instance: %s", printable(err.Error()))
	}
	return kms.NewFromConfig(c, func(o *kms.Options) {
		if k.endpoint != "" {
			o.BaseEndpoint = &k.endpoint
		}
	}), nil
}

func explainAWS(err error, quote bool) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return unavailable(whyNot(rootCause(err)))
	}
	words := api.ErrorCode()
	if quote {
		words += ": " + api.ErrorMessage()
	}
	switch code := api.ErrorCode(); code {
	case "AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException",
		"SignatureDoesNotMatch", "ExpiredTokenException", "ExpiredToken", "MissingAuthenticationTokenException", "OptInRequired":
		return refused(errDenied, words)
	case "DisabledException", "KMSInvalidStateException":
		return refused(errDisabled, words)
	case "NotFoundException", "InvalidArnException":
		return refused(errNoKey, words)
	case "InvalidCiphertextException", "IncorrectKeyException":
		return errWrongKey
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "LimitExceededException":
		return unavailable("it asks to come again later (" + printable(words) + ")")
	case "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException":
		return unavailable(printable(words))
	}
	if api.ErrorFault() == smithy.FaultServer {
		return unavailable(printable(words))
	}
	return refused(errors.New("it refused"), words)
}

// rootCause is the innermost error: the SDK puts many words around it.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
