package standin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// An upload is a multipart body, read as it streams in.
type upload struct {
	fields map[string]string
	files  []uploadedFile
}

type uploadedFile struct {
	field, name, kind string
	size              int64
	sha256            string
}

// readUpload reads a multipart body to its end, keeping the files' hashes only.
func readUpload(r *http.Request) (*upload, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, fmt.Errorf("reading an upload: %w", err)
	}
	up := &upload{fields: map[string]string{}}
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			drain(r)
			return up, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading an upload: %w", err)
		}
		if p.FileName() == "" {
			b, err := io.ReadAll(io.LimitReader(p, 1<<20))
			if err != nil {
				return nil, fmt.Errorf("reading field %q of an upload: %w", p.FormName(), err)
			}
			up.fields[p.FormName()] = string(b)
			continue
		}
		sum := sha256.New()
		n, err := io.Copy(sum, p)
		if err != nil {
			return nil, fmt.Errorf("reading file %q of an upload: %w", p.FileName(), err)
		}
		up.files = append(up.files, uploadedFile{
			field: p.FormName(), name: p.FileName(), kind: p.Header.Get("Content-Type"), size: n, sha256: hex.EncodeToString(sum.Sum(nil)),
		})
	}
}
