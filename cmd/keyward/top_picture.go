package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/admin"
)

// A shade is how a part of a line is shown where there are colours: what is wrong is to be seen from across the room.
type shade string

const (
	plain   shade = ""
	strong  shade = "\x1b[1m"
	faint   shade = "\x1b[2m"
	warning shade = "\x1b[33m"
	alarm   shade = "\x1b[31m"
	noShade       = "\x1b[0m"
)

// A span is a part of a line in one shade.
type span struct {
	text string
	shade
}

// text is a line as it is written, cut to so many columns; 0: not cut.
func text(line []span, columns int, colours bool) string {
	var b strings.Builder
	for _, s := range line {
		runes := []rune(s.text)
		if columns > 0 && len(runes) > columns {
			runes = runes[:columns]
		}
		if len(runes) == 0 {
			continue
		}
		if colours && s.shade != plain {
			b.WriteString(string(s.shade) + string(runes) + noShade)
		} else {
			b.WriteString(string(runes))
		}
		if columns > 0 {
			if columns -= len(runes); columns == 0 {
				break
			}
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// picture is the snapshot as lines, for so many columns; 0: as many as it takes.
func (t *snapshot) picture(columns int) [][]span {
	var stored int64
	for _, n := range t.Credentials.ByProvider {
		stored += n
	}
	hits := "-"
	if t.Traffic.CacheHitRate != nil {
		hits = strconv.FormatFloat(100**t.Traffic.CacheHitRate, 'f', 1, 64) + " %"
	}
	head := []span{
		{"keyward ", strong},
		{fmt.Sprintf("%s   up %s   store %s", printable(t.Version), time.Duration(t.Uptime)*time.Second, printable(t.Store)), plain},
	}
	if t.Cache.StoreDown {
		head = append(head, span{" DOWN", alarm})
	}
	lines := [][]span{
		append(head, span{fmt.Sprintf("   the last %.0f s", t.Traffic.Window), plain}),
		nil,
		row("requests", figure(rate(t.Traffic.Requests)+"/s", ""), figureIf(t.Traffic.Refused, warning, "/s", "refused"), figureIf(t.Traffic.Failed, alarm, "/s", "failed"),
			figure(strconv.FormatInt(t.Proxy["requests"], 10), "in all")),
		row("cache", figure(hits, "hit"), figure(strconv.FormatInt(t.Cache.Entries, 10), "held")),
		row("webhooks", figure(strconv.FormatInt(t.Webhooks.Pending, 10), "waiting"), figureIf(float64(t.Webhooks.Dead), alarm, "", "dead")),
		row("stored", figure(strconv.FormatInt(stored, 10), nouns(int(stored), "credential")), figure(strconv.FormatInt(t.Orgs, 10), nouns(int(t.Orgs), "org")),
			figureIf(float64(t.Credentials.Disabled), warning, "", "disabled")),
		nil,
	}
	return append(lines, t.providers(columns)...)
}

// Widths of the table of providers, and of a figure.
const (
	nameWidth   = 16
	cellWidth   = 10
	figureWidth = 10
	wordWidth   = 12
)

// providers is the table: the busiest first, and as many columns as there is room for.
func (t *snapshot) providers(columns int) [][]span {
	heads := []string{"REQ/S", "ERR/S", "P50 MS", "P99 MS", "OWN P50", "OWN P99"}
	for columns > 0 && len(heads) > 2 && nameWidth+cellWidth*len(heads) > columns {
		heads = heads[:len(heads)-2]
	}
	title := fmt.Sprintf("%-*s", nameWidth, "PROVIDER")
	for _, h := range heads {
		title += fmt.Sprintf("%*s", cellWidth, h)
	}
	lines := [][]span{{{title, strong}}}
	all := slices.Clone(t.Traffic.Providers)
	slices.SortStableFunc(all, func(a, b admin.ProviderTraffic) int { return cmp.Compare(b.Requests, a.Requests) })
	for _, p := range all {
		line := []span{{fmt.Sprintf("%-*s", nameWidth, printable(p.Provider)), plain}}
		if p.Requests == 0 {
			line[0].shade = faint
		}
		for i, v := range []string{rate(p.Requests), rate(p.Errors), ms(p.P50), ms(p.P99), ms(p.OwnP50), ms(p.OwnP99)}[:len(heads)] {
			s := line[0].shade
			if i == 1 && p.Errors > 0 {
				s = alarm
			}
			line = append(line, span{fmt.Sprintf("%*s", cellWidth, v), s})
		}
		lines = append(lines, line)
	}
	return append(lines, []span{{"Times are milliseconds until the answer's end; OWN: of those, what Keyward adds.", faint}})
}

// row is a label and figures below each other's.
func row(label string, figures ...[]span) []span {
	line := []span{{fmt.Sprintf("%-*s", nameWidth-figureWidth+4, label), plain}}
	for _, f := range figures {
		line = append(line, f...)
	}
	return line
}

func figure(n, word string) []span {
	return []span{{fmt.Sprintf("%*s %-*s", figureWidth, n, wordWidth, word), plain}}
}

// figureIf is one that shows when it is not zero.
func figureIf(v float64, s shade, unit, word string) []span {
	n := strconv.FormatFloat(v, 'f', 0, 64)
	if unit != "" {
		n = rate(v)
	}
	f := figure(n+unit, word)
	if v > 0 {
		f[0].shade = s
	}
	return f
}

func rate(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }

// ms is a time in a table; nobody asked: a dash.
func ms(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v < 10:
		return strconv.FormatFloat(*v, 'f', 3, 64)
	}
	return strconv.FormatFloat(*v, 'f', 1, 64)
}
