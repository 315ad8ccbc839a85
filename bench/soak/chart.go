package soak

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// Measures of the chart, in the SVG's own units.
const (
	chartWidth, panelHeight = 860.0, 170.0
	chartLeft, chartRight   = 64.0, 14.0
	panelTop, panelBottom   = 26.0, 22.0
)

var lineColours = []string{"#2563eb", "#d97706", "#059669"}

// WriteChart draws one panel for each figure: a line for each sidecar, and a mark for each fault.
func (r *Report) WriteChart(w io.Writer) error {
	var sidecars []string
	end := 1.0
	for _, s := range r.Samples {
		if !slices.Contains(sidecars, s.Sidecar) {
			sidecars = append(sidecars, s.Sidecar)
		}
		end = max(end, s.At)
	}
	height := panelHeight*float64(len(figures)) + 24
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12"><title>Memory, live heap, descriptors and goroutines of each sidecar over the time</title>`, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="#ffffff"/>`, chartWidth, height)
	for i, name := range sidecars {
		x := chartLeft + float64(i)*120
		fmt.Fprintf(&b, `<rect x="%g" y="6" width="14" height="4" fill="%s"/><text x="%g" y="13" fill="#374151">%s</text>`, x, lineColours[i%len(lineColours)], x+20, html.EscapeString(name))
	}
	fmt.Fprintf(&b, `<text x="%g" y="13" text-anchor="end" fill="#6b7280">grey: a fault</text>`, chartWidth-chartRight)
	for i := range figures {
		r.panel(&b, &figures[i], sidecars, 16+panelHeight*float64(i), end)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) panel(b *strings.Builder, f *figure, sidecars []string, top, end float64) {
	most := int64(1)
	for i := range r.Samples {
		most = max(most, f.of(&r.Samples[i]))
	}
	unit := 1.0
	if f.unit == "MiB" {
		unit = 1 << 20
	}
	scale := nice(float64(most) / unit)
	x := func(at float64) float64 { return chartLeft + (chartWidth-chartLeft-chartRight)*at/end }
	y := func(v float64) float64 {
		return top + panelTop + (panelHeight-panelTop-panelBottom)*(1-v/scale)
	}
	for _, w := range r.Faults {
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#e5e7eb"><title>%s</title></rect>`, x(w.Begin), y(scale), max(x(w.End)-x(w.Begin), 0.5), y(0)-y(scale), html.EscapeString(w.Name))
	}
	fmt.Fprintf(b, `<text x="%g" y="%.1f" fill="#111827" font-weight="bold">%s</text>`, chartLeft, top+panelTop-8, html.EscapeString(strings.TrimSpace(f.name+" "+f.unit)))
	for _, share := range []float64{0, 0.5, 1} {
		v := scale * share
		fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#d1d5db"/><text x="%g" y="%.1f" text-anchor="end" fill="#6b7280">%g</text>`, chartLeft, chartWidth-chartRight, y(v), y(v), chartLeft-6, y(v)+4, v)
	}
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#6b7280">%.3g min</text>`, min(x(end*share), chartWidth-chartRight-16), y(0)+15, end*share/60)
	}
	for i, name := range sidecars {
		var points []string
		for k := range r.Samples {
			if s := &r.Samples[k]; s.Sidecar == name && f.of(s) >= 0 {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(s.At), y(float64(f.of(s))/unit)))
			}
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`, lineColours[i%len(lineColours)], strings.Join(points, " "))
	}
}

// nice is the next number above v that reads well: 1, 2, 4, 6, 8 or 10 times a power of ten.
func nice(v float64) float64 {
	power := 1.0
	for power*10 < v {
		power *= 10
	}
	for _, m := range []float64{1, 2, 4, 6, 8} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}
