// Package keysource is where the keyset is kept: in a file that its owner alone may read, in the environment, or in a file that a key
// management service has wrapped (AWS KMS, Google Cloud KMS, Vault's transit engine).
//
// A wrapped keyset is a file without secrets in it: the keyset, sealed with AES-256-GCM under a data key, and that data key as the service
// has encrypted it. The service is asked when the file is read or written, at a start and at a rotation, and never on a request's way: a
// sidecar that runs goes on while the service is away.
//
//	{
//	  "version": 1,
//	  "wrapped_by": "awskms:///arn:aws:kms:eu-central-1:111122223333:key/…",
//	  "data_key": "…as the service encrypted it, in base64…",
//	  "keyset": "…nonce, cipher text and tag in base64…"
//	}
//
// What the services answer is taken from their own references: AWS KMS API Reference (Encrypt, Decrypt and their errors), Cloud KMS REST
// v1 (projects.locations.keyRings.cryptoKeys.encrypt and decrypt), Vault's transit secrets engine (HTTP API).
package keysource
