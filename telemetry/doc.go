// Package telemetry shows what the program does to those who run it: metrics as Prometheus asks for them and as OpenTelemetry's collector
// takes them, and traces. It is the only package that knows an exporter.
//
//	metrics.go     what is counted and measured, under which names
//	collection.go  one look at all the numbers, which the parts of the program keep
//	spans.go       finished spans, on their way to the collector
//	telemetry.go   the exporters, their beginning and end
//
// Nobody who serves a request waits for any of it. Numbers are read when they are asked for; spans wait in a queue with a bound, and what
// finds it full is dropped and counted. A collector that is away, slow, or talks nonsense costs a line in the log every minute.
package telemetry
