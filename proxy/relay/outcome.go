package relay

import "cohort/internal/wire"

// Kind is what a response ended with.
type Kind uint8

// The ends of a response.
const (
	KindNone  Kind = iota // the command has no response, or it did not arrive
	KindOK                // an OK packet
	KindEOF               // the end of a result set
	KindErr               // an ERR packet
	KindOther             // definitions of a prepared statement, or a plain string
)

// Outcome is what a response said, as the backend said it. Info and Trackers are
// valid until the next Response.
type Outcome struct {
	Kind Kind
	wire.OK
	Err *wire.ServerError // KindErr

	// Results counts the results (OKs and result sets) before the last one.
	Results int
	// Rows counts the rows of all result sets, Bytes what the backend sent.
	Rows  uint64
	Bytes uint64
	// Relayed says that something of this response was queued for the client;
	// after an error it can no longer be answered in another way.
	Relayed bool
	// Held says that the final packet is still owed to the client: Finish.
	Held bool

	// COM_STMT_PREPARE only.
	StmtID   uint32
	ClientID uint32 // what ResponseOptions.StmtID made of it
	Params   uint16
	Columns  uint16
}

// Failed reports whether the response ended with an error.
func (o *Outcome) Failed() bool { return o.Kind == KindErr }

// ResponseOptions say what to do with a response besides passing it on.
type ResponseOptions struct {
	// Swallow relays nothing: for statements of the proxy's own.
	Swallow bool
	// Row, with Swallow, is called for each text or binary row's payload; rows
	// longer than 1 MiB are left out.
	Row func(payload []byte)
	// Hold relays everything but the final packet, which Finish sends later.
	Hold bool
	// MoreResults announces a further result after the last one, whose packets
	// the proxy sends next.
	MoreResults bool
	// ClearStatus and SetStatus change the status flags of every OK and EOF,
	// DropTrackers leaves out trackers, before they go to the client.
	ClearStatus  wire.Status
	SetStatus    wire.Status
	DropTrackers wire.TrackerSet
	// StmtID, if not nil, maps the statement id in the answer to
	// COM_STMT_PREPARE to the one the client is told.
	StmtID func(id uint32) uint32
	// Rewrite, if not nil, runs on every closing packet that goes to the
	// client, after the changes above, and may change it in place or block. last
	// is false for all but the final one. It returns whether it changed
	// anything.
	Rewrite func(out *Outcome, last bool) bool
}

// alter applies o to a packet about to go to the client and reports whether
// that changed it. scratch is memory for filtered trackers.
func (o *ResponseOptions) alter(out *Outcome, last bool, scratch *[]byte) (changed bool) {
	if out.Kind != KindErr {
		status := out.Status&^o.ClearStatus | o.SetStatus
		if last && o.MoreResults {
			status |= wire.StatusMoreResults
		}
		changed = status != out.Status
		out.Status = status
		if o.DropTrackers != 0 && out.Trackers.Types()&o.DropTrackers != 0 {
			*scratch = out.Trackers.AppendWithout((*scratch)[:0], o.DropTrackers)
			out.Trackers = *scratch
			changed = true
		}
	}
	if o.Rewrite != nil && o.Rewrite(out, last) {
		changed = true
	}
	return changed
}
