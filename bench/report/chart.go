package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Measures of the charts, in the SVG's own units.
const (
	chartWidth, chartHeight     = 720.0, 300.0
	left, right, top, bottom    = 56.0, 14.0, 10.0, 34.0
	barHeight, barGap, barLabel = 20.0, 8.0, 130.0
)

// colours are settled per peer, so that one has the same in every chart. :: peer → class of the page's style
var colours = map[string]string{
	keyward: "c1", nginx: "c2", "haproxy": "c3", relay: "c4", reverseProxy: "c5",
	warm: "c2", "keyward sqlite": "c1", "keyward postgres": "c4", direct: "c0", "direct again": "c0",
}

func colour(peer string) string {
	if c := colours[peer]; c != "" {
		return c
	}
	return "c6"
}

// curve is a peer's latency by percentile: the median of the rounds at each point.
type curve struct {
	peer   string
	points [][2]float64 // place on the axis of percentiles, µs
}

// place of a percentile on a logarithmic axis: 0, 90, 99, 99.9 … are equally far apart.
func place(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

func curves(runs []Run) []curve {
	var all []curve
	for _, run := range runs {
		if run.Peer == "direct again" || len(run.Rounds) == 0 {
			continue
		}
		c := curve{peer: run.Peer}
		least := run.Rounds[0].Requests
		for _, r := range run.Rounds {
			least = min(least, r.Requests)
		}
		for i, p := range run.Rounds[0].Percentiles {
			if (1-p[0]/100)*float64(least) < 3 {
				break // a percentile with fewer answers beyond it is one answer's luck
			}
			var v []float64
			for _, r := range run.Rounds {
				if i < len(r.Percentiles) && r.Percentiles[i][0] == p[0] {
					v = append(v, r.Percentiles[i][1])
				}
			}
			if m := Median(v); m > 0 {
				c.points = append(c.points, [2]float64{place(p[0]), m})
			}
		}
		if len(c.points) > 1 {
			all = append(all, c)
		}
	}
	return all
}

// latencyChart draws the curves on two logarithmic axes; empty where there is nothing to draw.
func latencyChart(title string, runs []Run) template.HTML {
	all := curves(runs)
	if len(all) == 0 {
		return ""
	}
	low, high, far := math.Inf(1), 0.0, 1.0
	for _, c := range all {
		for _, p := range c.points {
			low, high, far = min(low, p[1]), max(high, p[1]), max(far, p[0])
		}
	}
	low, high = math.Log10(low)-0.05, math.Log10(high)+0.05
	x := func(v float64) float64 { return left + (chartWidth-left-right)*v/far }
	y := func(us float64) float64 {
		return top + (chartHeight-top-bottom)*(high-math.Log10(us))/(high-low)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(title))
	for _, us := range ticks(low, high) {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick end" x="%.1f" y="%.1f">%s</text>`, left, chartWidth-right, y(us), y(us), left-6, y(us)+4, duration(us))
	}
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999} {
		if place(p) <= far {
			fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="tick mid" x="%.1f" y="%g">%v %%</text>`, x(place(p)), x(place(p)), top, chartHeight-bottom, x(place(p)), chartHeight-bottom+16, p)
		}
	}
	slices.SortStableFunc(all, func(a, b curve) int { return ours(a.peer) - ours(b.peer) }) // ours on top
	for _, c := range all {
		path := make([]string, len(c.points))
		for i, p := range c.points {
			path[i] = fmt.Sprintf("%.1f,%.1f", x(p[0]), y(p[1]))
		}
		fmt.Fprintf(&b, `<polyline class="line %s" points="%s"/>`, colour(c.peer), strings.Join(path, " "))
		for _, p := range c.points {
			for _, named := range []float64{50, 90, 99, 99.9, 99.99} {
				if p[0] == place(named) {
					fmt.Fprintf(&b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.5"><title>%s: %v %% within %s</title></circle>`, colour(c.peer), x(p[0]), y(p[1]), template.HTMLEscapeString(c.peer), named, duration(p[1]))
				}
			}
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // of numbers and escaped names
}

func ours(peer string) int {
	if strings.HasPrefix(peer, keyward) {
		return 1
	}
	return 0
}

// cpuChart draws a bar per peer that has a process, with the range of its rounds as a line; empty where there is nothing to draw.
func cpuChart(title string, runs []Run) template.HTML {
	type bar struct {
		peer              string
		value, low, highs float64
	}
	var all []bar
	most := 0.0
	for _, run := range runs {
		v := run.Values(figure("cpu"))
		if m := Median(v); m > 0 {
			all = append(all, bar{run.Peer, m, slices.Min(v), slices.Max(v)})
			most = max(most, slices.Max(v))
		}
	}
	if len(all) == 0 {
		return ""
	}
	height := float64(len(all))*(barHeight+barGap) + barGap
	x := func(v float64) float64 { return barLabel + (chartWidth-barLabel-80)*v/most }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, height, template.HTMLEscapeString(title))
	for i, r := range all {
		y := barGap + float64(i)*(barHeight+barGap)
		name := template.HTMLEscapeString(r.peer)
		fmt.Fprintf(&b, `<text class="name end" x="%.1f" y="%.1f">%s</text>`, barLabel-8, y+barHeight*0.7, name)
		fmt.Fprintf(&b, `<rect class="bar %s" x="%.1f" y="%.1f" width="%.1f" height="%g" rx="3"><title>%s: %s µs, rounds from %s to %s</title></rect>`, colour(r.peer), barLabel, y, max(x(r.value)-barLabel, 1), barHeight, name, number(r.value), number(r.low), number(r.highs))
		fmt.Fprintf(&b, `<line class="range" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, x(r.low), x(r.highs), y+barHeight/2, y+barHeight/2)
		fmt.Fprintf(&b, `<text class="value" x="%.1f" y="%.1f">%s µs</text>`, x(r.highs)+8, y+barHeight*0.7, number(r.value))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="0" y2="%g"/></svg>`, barLabel, barLabel, height)
	return template.HTML(b.String()) // of numbers and escaped names
}

// ticks are the 1, 2 and 5 times powers of ten between two powers.
func ticks(low, high float64) []float64 {
	var all []float64
	for e := math.Floor(low); e <= high; e++ {
		for _, m := range []float64{1, 2, 5} {
			if m != 1 && high-low > 2.5 {
				continue // they would stand too close
			}
			if v := math.Log10(m) + e; v >= low && v <= high {
				all = append(all, m*math.Pow(10, e))
			}
		}
	}
	return all
}

func duration(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%.3g s", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%.3g ms", us/1e3)
	}
	return fmt.Sprintf("%.3g µs", us)
}
