package telemetry

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/keyward/keyward/trace"
)

// A Collection is one look at all the numbers. Whoever fills it reads counters that the parts of the program keep anyway: a request pays
// for one addition to each, and nothing is counted twice.
type Collection struct {
	since, at time.Time
	order     []*Metric
	data      map[*Metric]metricdata.Aggregation
}

// A Distribution is what a histogram knows.
type Distribution struct {
	Counts   []uint64 // below each of the metric's bounds but not below the one before; the last: not below any
	Total    time.Duration
	Examples []Example
}

// An Example is one of the measured, and where it can be looked at.
type Example struct {
	Took  time.Duration
	At    time.Time
	Trace trace.Context
}

// Number sets what a counter or a gauge says, with a value for each of its labels.
func (c *Collection) Number(m *Metric, n float64, labels ...string) {
	set := attributes(m, labels)
	switch all := c.data[m].(type) {
	case metricdata.Gauge[float64]:
		all.DataPoints = append(all.DataPoints, metricdata.DataPoint[float64]{Attributes: set, StartTime: c.since, Time: c.at, Value: n})
		c.data[m] = all
	case metricdata.Sum[int64]:
		all.DataPoints = append(all.DataPoints, metricdata.DataPoint[int64]{Attributes: set, StartTime: c.since, Time: c.at, Value: int64(n)})
		c.data[m] = all
	default:
		c.begin(m)
		c.Number(m, n, labels...)
	}
}

// Durations sets what a histogram says.
func (c *Collection) Durations(m *Metric, d Distribution, labels ...string) {
	all, ok := c.data[m].(metricdata.Histogram[float64])
	if !ok {
		c.begin(m)
		all, _ = c.data[m].(metricdata.Histogram[float64])
	}
	point := metricdata.HistogramDataPoint[float64]{
		Attributes: attributes(m, labels), StartTime: c.since, Time: c.at, Sum: d.Total.Seconds(), BucketCounts: d.Counts, Bounds: make([]float64, len(m.Bounds)),
	}
	for i, b := range m.Bounds {
		point.Bounds[i] = float64(b.Microseconds()) / 1e6 // b.Seconds() rounds twice
	}
	for _, n := range d.Counts {
		point.Count += n
	}
	for _, e := range d.Examples {
		point.Exemplars = append(point.Exemplars, metricdata.Exemplar[float64]{Time: e.At, Value: e.Took.Seconds(), TraceID: e.Trace.Trace[:], SpanID: e.Trace.Span[:]})
	}
	all.DataPoints = append(all.DataPoints, point)
	c.data[m] = all
}

func (c *Collection) begin(m *Metric) {
	c.order = append(c.order, m)
	switch m.Kind {
	case Counter:
		c.data[m] = metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	case Histogram:
		c.data[m] = metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
	default:
		c.data[m] = metricdata.Gauge[float64]{}
	}
}

func attributes(m *Metric, values []string) attribute.Set {
	if len(values) != len(m.Labels) {
		panic(fmt.Sprintf("%s has %d labels, not %d", m.Name, len(m.Labels), len(values)))
	}
	all := make([]attribute.KeyValue, len(values))
	for i, v := range values {
		all[i] = attribute.String(m.Labels[i], v)
	}
	return attribute.NewSet(all...)
}

// A producer hands what the program counts to the exporters.
type producer struct {
	since time.Time
	fill  []func(*Collection)
}

// Produce implements sdk/metric.Producer.
func (p *producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	c := &Collection{since: p.since, at: time.Now(), data: map[*Metric]metricdata.Aggregation{}}
	for _, fill := range p.fill {
		fill(c)
	}
	out := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: scope}}
	for _, m := range c.order {
		out.Metrics = append(out.Metrics, metricdata.Metrics{Name: m.Name, Description: m.Help, Unit: m.Unit, Data: c.data[m]})
	}
	return []metricdata.ScopeMetrics{out}, nil
}

// scope names who made it all, as OpenTelemetry wants it.
const scope = "github.com/keyward/keyward"
