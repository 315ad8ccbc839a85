package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// A bom is a software bill of materials (CycloneDX 1.6, ecma-international.org/ECMA-424).
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// sbom lists the modules that the program was linked from, as the linker wrote them into it, and the Go release. A module's hash is that of
// go.sum (golang.org/x/mod/sumdb/dirhash).
func sbom(program, version string) ([]byte, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	self := golang("application", info.Main.Path, version)
	self.Hashes = []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(b))}}
	out := bom{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{self}}
	needs := dependency{Ref: self.Ref}
	add := func(c component) {
		out.Components = append(out.Components, c)
		needs.On = append(needs.On, c.Ref)
	}
	goVersion, _, _ := strings.Cut(info.GoVersion, " ") // an experiment may follow
	add(golang("library", "std", strings.TrimPrefix(goVersion, "go")))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := golang("library", m.Path, m.Version)
		if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
			raw, err := base64.StdEncoding.DecodeString(sum)
			if err != nil {
				return nil, fmt.Errorf("the hash of %s: %w", m.Path, err)
			}
			c.Hashes = []hash{{"SHA-256", fmt.Sprintf("%x", raw)}}
		}
		add(c)
	}
	out.Dependencies = []dependency{needs}
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}

func golang(kind, path, version string) component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	return component{Type: kind, Ref: purl, Name: path, Version: version, PURL: purl}
}
