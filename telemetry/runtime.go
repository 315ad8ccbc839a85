package telemetry

import "runtime/metrics"

// What Go's runtime says of itself, for the collector, by OpenTelemetry's names. Prometheus gets its own: go_… and process_….
var (
	goroutines = &Metric{Name: "go.goroutine.count", Kind: Gauge, Unit: "{goroutine}", Help: "Goroutines."}
	memory     = &Metric{Name: "go.memory.used", Kind: Gauge, Unit: "By", Help: "Memory that Go has of the system and has not given back."}
	allocated  = &Metric{Name: "go.memory.allocated", Kind: Counter, Unit: "By", Help: "Memory that was allocated since the start."}
)

func fillRuntime(c *Collection) {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	n := func(i int) float64 { return float64(samples[i].Value.Uint64()) }
	c.Number(goroutines, n(0))
	c.Number(memory, n(1)-n(2))
	c.Number(allocated, n(3))
}
