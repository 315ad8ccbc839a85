package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Each adds to the rows of one table what a batch says. A time only moves forward, whichever sidecar comes last; an id that is not there
// any more is passed over. No trigger announces it, and it has no version: being used changes nothing that anyone keeps a copy of.
//
// On PostgreSQL the rows are locked in the order of their ids, so that two sidecars' batches never wait for each other both ways, and the
// statement does not wait for the disk. On SQLite last_used_at is a text to the second, so that texts compare as their times do.
const (
	pgUses = `WITH r AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS relaxed),
		v AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS v (id, at, n)),
		held AS MATERIALIZED (SELECT t.%[2]s AS id FROM %[1]s AS t JOIN v ON v.id = t.%[2]s ORDER BY t.%[2]s FOR NO KEY UPDATE OF t)
		UPDATE %[1]s AS t SET last_used_at = greatest(t.last_used_at, to_timestamp(v.at)), use_count = t.use_count + v.n
		FROM r, v, held WHERE r.relaxed = 'off' AND held.id = v.id AND t.%[2]s = held.id`
	liteUses = `UPDATE %[1]s SET last_used_at = max(coalesce(last_used_at, ''), v.at), use_count = use_count + v.n
		FROM (SELECT value ->> 0 AS id, value ->> 1 AS at, value ->> 2 AS n FROM json_each($1)) AS v WHERE v.id = %[1]s.%[2]s`
)

var (
	assistantUses     = fmt.Sprintf(pgUses, "assistant_org_mapping", "vapi_assistant_id")
	assistantUsesLite = fmt.Sprintf(liteUses, "assistant_org_mapping", "vapi_assistant_id")
	tokenUses         = fmt.Sprintf(pgUses, "caller_tokens", "id")
	tokenUsesLite     = fmt.Sprintf(liteUses, "caller_tokens", "id")
)

// writeUses writes one batch. After an error it may have been written all the same, if the connection was lost at that moment: then it
// counts twice.
func (d *DB) writeUses(ctx context.Context, t *tally, batch []pending) error {
	if d.lite != nil {
		rows := make([][3]any, len(batch))
		for i, p := range batch {
			rows[i] = [3]any{p.id, time.Unix(p.last, 0).UTC().Format(time.RFC3339), p.n}
		}
		b, err := json.Marshal(rows)
		if err != nil {
			return fmt.Errorf("encoding what was used: %w", err)
		}
		return d.writeRelaxed(ctx, func(x *tx) error {
			_, err := x.exec(t.lite, string(b))
			return err
		})
	}
	ids, times, counts := make([]string, len(batch)), make([]int64, len(batch)), make([]int64, len(batch))
	for i, p := range batch {
		ids[i], times[i], counts[i] = p.id, p.last, p.n
	}
	return d.exec(forEvery(ctx), t.query, ids, times, counts)
}
