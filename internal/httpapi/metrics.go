package httpapi

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// DurationBuckets are the buckets of every histogram of durations, in seconds:
// exponential, from 50 µs (less than one message between members) to 26 s.
var DurationBuckets = prometheus.ExponentialBuckets(50e-6, 2, 20)

// SizeBuckets are the buckets of every histogram of sizes, in bytes:
// exponential, from 64 bytes to 1 GiB.
var SizeBuckets = prometheus.ExponentialBuckets(64, 4, 13)

// NewRegistry returns a registry with Go's and the process's own metrics and the
// ones that follow from status. Other parts register theirs in it, named
// cohort_<part>_<what>_<unit>.
func NewRegistry(status func() Status) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		statusCollector(status),
	)
	return r
}

// statusCollector turns a Status into metrics when it is asked, so that the
// numbers agree with /status and cost nothing in between.
type statusCollector func() Status

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cohort_"+name, help, labels, nil)
}

var (
	descMember      = desc("member_info", "One per member of the view, as this member sees it; always 1.", "member_id", "state", "role", "version")
	descHealthy     = desc("member_healthy", "1 if this member would answer /health with 200.")
	descPrimary     = desc("member_primary", "1 if this member would answer /primary with 200.")
	descLeader      = desc("member_log_leader", "1 if this member leads the ordered log.")
	descEpoch       = desc("group_epoch", "Counts the appointments of a primary.")
	descLastOrdered = desc("transactions_last_ordered", "Number of the last group transaction in this member's copy of the log.")
	descApplied     = desc("transactions_applied", "Highest n for which the group transactions 1 to n are visible on this member's mysqld.")
	descBacklog     = desc("transactions_backlog", "Ordered group transactions that are not visible on this member's mysqld yet.")
)

// Describe implements prometheus.Collector.
func (c statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descMember, descHealthy, descPrimary, descLeader, descEpoch, descLastOrdered, descApplied, descBacklog} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(d *prometheus.Desc, b bool) {
		v := 0.0
		if b {
			v = 1
		}
		gauge(d, v)
	}
	seen := map[string]bool{} // a registry refuses the whole answer over one duplicate
	for _, m := range s.Members {
		if !seen[m.MemberID] {
			seen[m.MemberID] = true
			// What a member says about itself came over the network; text that is
			// no UTF-8 would make the library panic.
			text := func(s string) string { return strings.ToValidUTF8(s, "?") }
			gauge(descMember, 1, text(m.MemberID), text(m.State), text(m.Role), text(m.Version))
		}
	}
	truth(descHealthy, s.ready() == "")
	truth(descPrimary, s.hasRole(Primary) == "")
	truth(descLeader, s.Leader != "" && s.Leader == s.Self.MemberID)
	gauge(descEpoch, float64(s.Epoch))
	gauge(descLastOrdered, float64(s.LastOrdered))
	gauge(descApplied, float64(s.Applied))
	gauge(descBacklog, float64(s.Backlog))
}
