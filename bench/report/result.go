// Package report holds what a run of the benchmarks found, and shows it: a table while it runs, JSON, one HTML page, and the comparison
// of two runs.
package report

import "time"

// A Result is one run of the benchmarks on one machine. It is what bench/out/latest.json holds.
type Result struct {
	Machine Machine   `json:"machine"`
	Commit  string    `json:"commit"`
	Date    time.Time `json:"date"`
	// Runs are in the order in which they were measured.
	Runs []Run `json:"runs"`
	// Left says which peers and scenarios were left out, and why.
	Left []string `json:"left,omitempty"`
}

// A Machine is where a result was taken. Figures of two machines are not compared.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// A Run is one peer under one load of one scenario. Peers of the same scenario, concurrency and rate took their rounds in turn.
type Run struct {
	Scenario    string  `json:"scenario"`
	Peer        string  `json:"peer"`
	Concurrency int     `json:"concurrency"`
	Rate        float64 `json:"rate,omitempty"` // arrivals per second of an open loop; 0: closed loop
	Rounds      []Round `json:"rounds"`
}

// A Round is one turn of a run.
type Round struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors,omitempty"`
	Seconds  float64 `json:"seconds"`
	// Latency is in microseconds; in an open loop it counts from the intended start.
	Latency Quantiles `json:"latency"`
	// Percentiles are points for the chart: percentile (0 to 100) and microseconds, ascending.
	Percentiles [][2]float64 `json:"percentiles,omitempty"`
	// CPUMicros is the user and system time of the peer's processes per request; 0 where the peer has no process of its own.
	CPUMicros float64 `json:"cpu_micros"`
	// PeakRSS is in bytes.
	PeakRSS int64 `json:"peak_rss"`
	// UpstreamConns is how many connections the provider accepted during the round.
	UpstreamConns int64 `json:"upstream_conns"`
	// AllocsPerRequest is of the peer's whole process; -1 where it cannot be read.
	AllocsPerRequest float64 `json:"allocs_per_request"`
	// Extra are the figures that only this scenario has, each named with its unit, as in "rss_growth_bytes".
	Extra map[string]float64 `json:"extra,omitempty"`
}

// Quantiles of a latency, in microseconds.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}
