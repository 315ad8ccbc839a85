package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// A build says what this program was built from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // the working tree differed from the commit
	Time     string `json:"time"`     // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisBuild reads what the Go tool put into the program.
func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "dev" && info.Main.Version != "" {
		b.Version = info.Main.Version // go install names the release itself
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}

func cmdVersion(_ context.Context, f *flags, args []string, std stdio) error {
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	b := thisBuild()
	if *asJSON {
		return printJSON(std.out, b)
	}
	fmt.Fprintf(std.out, "keyward %s\n", b.Version)
	if b.Commit != "" {
		fmt.Fprintf(std.out, "commit %s of %s\n", b.Commit, b.Time)
	}
	if b.Modified {
		fmt.Fprintln(std.out, "with changes that are not in the commit")
	}
	_, err := fmt.Fprintf(std.out, "%s %s\n", b.Go, b.Platform)
	return err
}
