package problem

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblem(t *testing.T) {
	got := map[string]any{}
	if err := json.Unmarshal(Append(nil, 424, "credential_missing", `the "org" has none`, "r1"), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "urn:keyward:error:credential_missing", "title": "Failed Dependency", "status": 424.0,
		"detail": `the "org" has none`, "code": "credential_missing", "request_id": "r1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
