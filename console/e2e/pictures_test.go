package e2e

import (
	"flag"
	"os"
	"path/filepath"

	"github.com/chromedp/chromedp"
)

var update = flag.Bool("update", false, "make the pictures in docs/console anew")

// inDocs are the pictures that the documentation shows.
var inDocs = map[string]bool{
	"overview-1600-light": true, "overview-1600-dark": true, "org-1600-light": true, "org-400-light": true, "integration-1600-light": true,
	"webhooks-1600-light": true, "access-1600-light": true, "audit-1600-dark": true,
}

// picture takes a picture for the documentation; KEYWARD_PICTURES names a folder that gets one of every page.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("KEYWARD_PICTURES")
	if *update && inDocs[name] {
		dir = "../../docs/console"
	}
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
