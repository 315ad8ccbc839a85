package report

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

type pageScenario struct {
	Name   string
	Groups []pageGroup
}

type pageGroup struct {
	Load, Base   string
	Latency, CPU template.HTML
	Legend       []pageKey
	Columns      []string
	Rows         []pageRow
	Extras       []string
}

type pageKey struct{ Name, Class string }

type pageRow struct {
	Ours  bool
	Cells []string
}

type pageMark struct {
	Mark
	Class string
}

// WritePage writes one HTML page that needs nothing besides: no script, no other host, light or dark as the reader has it.
func (r *Result) WritePage(w io.Writer) error {
	page := struct {
		*Result
		Marks     []pageMark
		Scenarios []pageScenario
	}{Result: r}
	for _, m := range r.Marks() {
		class := ""
		switch m.Verdict {
		case MarkReached:
			class = "reached"
		case MarkMissed:
			class = "missed"
		}
		page.Marks = append(page.Marks, pageMark{m, class})
	}
	for _, g := range r.Groups() {
		n := len(page.Scenarios)
		if n == 0 || page.Scenarios[n-1].Name != g.Scenario {
			page.Scenarios = append(page.Scenarios, pageScenario{Name: g.Scenario})
			n++
		}
		s := &page.Scenarios[n-1]
		s.Groups = append(s.Groups, r.pageGroup(g))
	}
	if err := pageTemplate.Execute(w, page); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

func (r *Result) pageGroup(g Group) pageGroup {
	p := pageGroup{Load: g.Load}
	if len(g.Runs) > 0 && g.Runs[0].Rate > 0 {
		p.Load += ", open loop: arrivals as planned, latency from the planned start"
	}
	title := g.Scenario + " " + g.Load
	p.Latency = latencyChart("latency by percentile, "+title, g.Runs)
	p.CPU = cpuChart("CPU per request, "+title, g.Runs)
	for _, c := range curves(g.Runs) {
		p.Legend = append(p.Legend, pageKey{c.peer, colour(c.peer)})
	}
	p.Columns = []string{"", "p50", "p99", "p99.9", "+p50", "+p99", "× p50", "× p99", "requests/s", "CPU", "allocs", "MiB", "conns", "errors"}
	for _, run := range g.Runs {
		if base := r.Base(run); base != nil {
			p.Base = base.Peer
		}
		p.Rows = append(p.Rows, pageRow{strings.HasPrefix(run.Peer, keyward), r.cells(run)})
		if s := run.Extras(); s != "" {
			p.Extras = append(p.Extras, run.Peer+": "+s)
		}
	}
	return p
}

// cells are a run's row in every table.
func (r *Result) cells(run Run) []string {
	m := func(name string) float64 { return Median(run.Values(figure(name))) }
	added := func(string) string { return "" }
	times := added
	if base := r.Base(run); base != nil {
		added = func(name string) string { return signed(Added(run, base, figure(name))) }
		times = func(name string) string { return Paired(run.Values(figure(name)), base.Values(figure(name))).String() }
	}
	return []string{
		run.Peer, number(m("p50")), number(m("p99")), number(m("p99.9")), added("p50"), added("p99"), times("p50"), times("p99"),
		number(m("requests")), positive(m("cpu")), allocations(m("allocs")), positive(m("memory") / (1 << 20)), number(m("upstream connections")), number(float64(run.Errors())),
	}
}
