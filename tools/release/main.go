// Command release packs built programs for those who run Keyward without building it: for every platform a tar archive and an SBOM, for Linux a
// Debian package besides, and the checksums of all.
//
//	release -repo DIR -bin DIR -written DIR -out DIR -version v1.2.3 -epoch SECONDS
//
// In -bin stand keyward_OS_ARCH, as tools/build.sh made them, and in -written what the program wrote about itself, as make man has it. The same input gives the same bytes: files are root's, their times are -epoch, they come
// in the order of their names, and nothing else takes part. tools/reproducible.sh holds it to that.
//
// main.go says what is packed; tar.go and deb.go how; sbom.go reads what a program is made of.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A release is what is packed, and where to.
type release struct {
	repo, bin, out string
	written        string // folder of man/ and completion/
	version        string // as of the tag: v1.2.3
	at             time.Time
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var r release
	var epoch int64
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.StringVar(&r.repo, "repo", ".", "the project's folder")
	f.StringVar(&r.bin, "bin", "dist/bin", "folder of the programs")
	f.StringVar(&r.written, "written", "dist", "folder of man/ and completion/, which make man writes")
	f.StringVar(&r.out, "out", "dist", "folder of what is made")
	f.StringVar(&r.version, "version", "", "of the release")
	f.Int64Var(&epoch, "epoch", 0, "time of everything, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	if r.version == "" || strings.ContainsAny(r.version, "/ \n") || epoch <= 0 {
		return errors.New("-version and -epoch are needed; see tools/release.sh")
	}
	r.at = time.Unix(epoch, 0).UTC()
	return r.pack()
}

// pack makes everything, and the list of it.
func (r *release) pack() error {
	programs, err := filepath.Glob(filepath.Join(r.bin, "keyward_*_*"))
	if err != nil {
		return fmt.Errorf("looking for programs in %q: %w", r.bin, err)
	}
	if len(programs) == 0 {
		return fmt.Errorf("no keyward_OS_ARCH in %q; tools/release.sh builds them", r.bin)
	}
	slices.Sort(programs)
	made := map[string][]byte{}
	for _, p := range programs {
		parts := strings.Split(filepath.Base(p), "_")
		if len(parts) != 3 {
			return fmt.Errorf("program %q is not named keyward_OS_ARCH", p)
		}
		system, arch := parts[1], parts[2]
		name := fmt.Sprintf("keyward_%s_%s_%s", strings.TrimPrefix(r.version, "v"), system, arch)
		content, err := r.archive(p, name)
		if err != nil {
			return fmt.Errorf("packing %q: %w", name, err)
		}
		if made[name+".tar.gz"], err = tarball(content, r.at); err != nil {
			return fmt.Errorf("packing %q: %w", name, err)
		}
		if made[name+".cdx.json"], err = sbom(p, r.version); err != nil {
			return fmt.Errorf("listing what %q is made of: %w", p, err)
		}
		if system == "linux" {
			deb, err := r.debian(p, arch)
			if err != nil {
				return fmt.Errorf("packing the Debian package for %s: %w", arch, err)
			}
			made[fmt.Sprintf("keyward_%s_%s.deb", debianVersion(r.version), arch)] = deb
		}
	}
	return r.write(made)
}

// archive is what the tar archive holds, under one folder.
func (r *release) archive(program, folder string) ([]entry, error) {
	all := []entry{{name: folder + "/keyward", mode: 0o755, from: program}}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		all = append(all, entry{name: folder + "/" + name, mode: 0o644, from: filepath.Join(r.repo, name)})
	}
	units, err := filepath.Glob(filepath.Join(r.repo, "deploy/systemd/*"))
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		all = append(all, entry{name: folder + "/systemd/" + filepath.Base(u), mode: 0o644, from: u})
	}
	for name, from := range r.about() {
		all = append(all, entry{name: folder + "/" + name, mode: 0o644, from: from})
	}
	return all, nil
}

// about is what the program wrote about itself. :: name in an archive → file
func (r *release) about() map[string]string {
	all := map[string]string{}
	for _, name := range []string{manual, "completion/keyward.bash", "completion/keyward.zsh", "completion/keyward.fish"} {
		all[name] = filepath.Join(r.written, name)
	}
	return all
}

const manual = "man/keyward.1"

// write writes what was made, and SHA256SUMS last.
func (r *release) write(made map[string][]byte) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	var names []string
	for name := range made {
		names = append(names, name)
	}
	slices.Sort(names)
	var sums strings.Builder
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(r.out, name), made[name], 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(made[name]), name)
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644) //nolint:gosec // for everybody
}
