package battery

import (
	"fmt"
	"slices"
	"strings"
)

// An edge of a kind says that one event came before another.
type edgeKind uint8

const (
	ww      edgeKind = 1 << iota // its write was overwritten by the other's
	wr                           // its write was read by the other
	rw                           // its read missed the other's write
	program                      // of one transaction: the snapshot before the commit
	session                      // of one connection: in the order of its answers
	clock                        // answered before the other began; writes only
	fresh                        // the same, of a write and a later read
)

func (k edgeKind) String() string {
	names := map[edgeKind]string{ww: "ww", wr: "wr", rw: "rw", program: "then", session: "session", clock: "time", fresh: "time"}
	return names[k]
}

type edge struct {
	to   int
	kind edgeKind
}

// graph orders events. A cycle means that no order of the events explains what
// was seen.
type graph struct {
	edges [][]edge
	label []string // "" for events that are not shown
}

func (g *graph) node(label string) int {
	g.edges = append(g.edges, nil)
	g.label = append(g.label, label)
	return len(g.edges) - 1
}

func (g *graph) edge(from, to int, kind edgeKind) {
	if from != to {
		g.edges[from] = append(g.edges[from], edge{to, kind})
	}
}

// cycles returns one short cycle for each strongly connected component of the
// edges of the given kinds that has more than one event. A cycle is a list of
// nodes; its last leads to its first.
func (g *graph) cycles(kinds edgeKind) [][]int {
	var found [][]int
	for _, component := range g.components(kinds) {
		inside := map[int]bool{}
		for _, n := range component {
			inside[n] = true
		}
		var best []int
		for _, n := range component[:min(len(component), 200)] {
			if c := g.shortest(n, kinds, inside); c != nil && (best == nil || len(c) < len(best)) {
				best = c
			}
		}
		found = append(found, best)
	}
	return found
}

// components is Tarjan's algorithm without recursion: histories are long.
func (g *graph) components(kinds edgeKind) [][]int {
	const unseen = -1
	index := slices.Repeat([]int{unseen}, len(g.edges))
	low := make([]int, len(g.edges))
	onStack := make([]bool, len(g.edges))
	var stack []int
	var found [][]int
	type frame struct{ node, next int }
	next := 0
	for root := range g.edges {
		if index[root] != unseen {
			continue
		}
		work := []frame{{root, 0}}
		for len(work) > 0 {
			f := &work[len(work)-1]
			n := f.node
			if f.next == 0 && index[n] == unseen {
				index[n], low[n] = next, next
				next++
				stack = append(stack, n)
				onStack[n] = true
			}
			if f.next < len(g.edges[n]) {
				e := g.edges[n][f.next]
				f.next++
				switch {
				case e.kind&kinds == 0:
				case index[e.to] == unseen:
					work = append(work, frame{e.to, 0})
				case onStack[e.to]:
					low[n] = min(low[n], index[e.to])
				}
				continue
			}
			work = work[:len(work)-1]
			if len(work) > 0 {
				parent := work[len(work)-1].node
				low[parent] = min(low[parent], low[n])
			}
			if low[n] != index[n] {
				continue
			}
			i := slices.Index(stack, n)
			component := slices.Clone(stack[i:])
			stack = stack[:i]
			for _, m := range component {
				onStack[m] = false
			}
			if len(component) > 1 {
				found = append(found, component)
			}
		}
	}
	return found
}

// shortest is the shortest cycle through a node.
func (g *graph) shortest(from int, kinds edgeKind, inside map[int]bool) []int {
	before := map[int]int{}
	queue := []int{from}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, e := range g.edges[n] {
			if e.kind&kinds == 0 || !inside[e.to] {
				continue
			}
			if e.to == from {
				cycle := []int{n}
				for n != from {
					n = before[n]
					cycle = append(cycle, n)
				}
				slices.Reverse(cycle)
				return cycle
			}
			if _, seen := before[e.to]; !seen {
				before[e.to] = n
				queue = append(queue, e.to)
			}
		}
	}
	return nil
}

// describe shows a cycle with its edges.
func (g *graph) describe(cycle []int, kinds edgeKind) string {
	var b strings.Builder
	for i, n := range cycle {
		to := cycle[(i+1)%len(cycle)]
		if g.label[n] != "" {
			b.WriteString(g.label[n])
		}
		for _, e := range g.edges[n] {
			if e.to == to && e.kind&kinds != 0 {
				if g.label[to] != "" || g.label[n] != "" {
					fmt.Fprintf(&b, " -%s-> ", e.kind)
				}
				break
			}
		}
	}
	return b.String() + "(the first)"
}
