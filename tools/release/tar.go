package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// An entry is a file of an archive: what stands in a file, or text.
type entry struct {
	name string // without a leading slash
	mode int64
	from string
	text []byte
}

func (e entry) content() ([]byte, error) {
	if e.from == "" {
		return e.text, nil
	}
	return os.ReadFile(e.from)
}

// tarball is a compressed archive of the files, and of the folders that they are in.
func tarball(files []entry, at time.Time) ([]byte, error) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	head := func(name string, mode int64, kind byte, size int64) error {
		return w.WriteHeader(&tar.Header{Name: name, Mode: mode, Typeflag: kind, Size: size, ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatGNU})
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	folders := map[string]bool{".": true}
	var within func(dir string) error
	within = func(dir string) error {
		if folders[dir] {
			return nil
		}
		folders[dir] = true
		if err := within(path.Dir(dir)); err != nil {
			return err
		}
		return head(dir+"/", 0o755, tar.TypeDir, 0)
	}
	for _, f := range files {
		if err := within(path.Dir(f.name)); err != nil {
			return nil, err
		}
		b, err := f.content()
		if err != nil {
			return nil, err
		}
		if err := head(f.name, f.mode, tar.TypeReg, int64(len(b))); err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return compressed(plain.Bytes())
}

// compressed is b by gzip, without a name and a time.
func compressed(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
