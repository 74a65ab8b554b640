// Command cmd runs the battery of package battery and prints its report.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/battery"
	"cohort/internal/mysqld"
	"cohort/internal/tool"
)

func main() { tool.Main("battery", run) }

type options struct {
	members        int
	control, leave bool
	net, disks     bool
	clocks         bool
	program, dir   string
	faults         string
	total          int
}

func run(ctx context.Context, logger zerolog.Logger) error {
	p := battery.Plan{Logger: logger}
	var o options
	var workloads string
	flag.Uint64Var(&p.Seed, "seed", 0, "of the faults and clients (default: a random one, printed)")
	flag.IntVar(&p.First, "first", 1, "number of the first round")
	flag.IntVar(&p.Rounds, "rounds", 20, "rounds, each with its own tables and checks")
	flag.IntVar(&p.Faults, "faults", 10, "faults in a round")
	flag.IntVar(&o.total, "faults-total", 0, "as many rounds as it takes to do this many faults (default: see -rounds)")
	flag.DurationVar(&p.Hold, "hold", 6*time.Second, "longest time that a fault lasts by itself")
	flag.DurationVar(&p.Apart, "apart", 3*time.Second, "longest time to the next fault")
	flag.DurationVar(&p.Patience, "patience", 3*time.Minute, "for everything to work again after the faults")
	flag.StringVar(&o.faults, "only", "", "names of faults, separated by commas (default: all but leave)")
	flag.StringVar(&workloads, "workloads", "", "append, bank, fork, session, register (default: all)")
	flag.BoolVar(&p.Before, "before", false, "half of the sessions of register read under group_replication_consistency=BEFORE, which must be linearizable")
	flag.IntVar(&o.members, "members", 3, "size of the group")
	flag.BoolVar(&o.control, "control", false, "a single mysqld instead of a group")
	flag.BoolVar(&o.net, "net", true, "networks of the members' own, where permitted")
	flag.BoolVar(&o.disks, "disks", true, "small disks of the members' own, where permitted")
	flag.BoolVar(&o.clocks, "clocks", true, "clocks of the mysqlds' own, where the library for it can be had")
	flag.BoolVar(&o.leave, "leave", false, "stop at the first finding and leave the group running")
	flag.StringVar(&o.program, "cohort", "", "path of the cohort program (default $COHORT_BIN or bin/cohort)")
	flag.StringVar(&o.dir, "dir", "", "directory for data and findings (default: a temporary one)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if p.Seed == 0 {
		p.Seed = rand.Uint64N(1e9) + 1
	}
	if p.Rounds < 1 || p.Faults < 1 || o.total < 0 {
		return errors.New("-rounds and -faults are 1 at least, -faults-total is not negative")
	}
	p.Only, p.Workloads = list(o.faults), list(workloads)
	if o.dir == "" {
		var err error
		if o.dir, err = os.MkdirTemp("", "cohort-battery-"); err != nil {
			return err
		}
	}
	fmt.Printf("seed %d, %s\n", p.Seed, time.Now().Format(time.DateTime))
	rounds, err := rounds(ctx, p, o)
	findings := 0
	for _, r := range rounds {
		findings += len(r.Findings)
	}
	err = errors.Join(err, battery.Report(os.Stdout, p.Seed, rounds))
	if findings > 0 {
		return errors.Join(err, fmt.Errorf("%d findings", findings))
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(o.dir)
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func start(ctx context.Context, o options, dir string) (battery.System, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if o.control {
		in, err := mysqld.Find(ctx, mysqld.FindOptions{Progress: os.Stderr})
		if err != nil {
			return nil, err
		}
		return battery.StartSingle(ctx, in, dir)
	}
	g, err := battery.StartGroup(ctx, battery.GroupOptions{Program: o.program, Dir: dir, Members: o.members, Net: o.net, Disks: o.disks, Clocks: o.clocks})
	if err != nil {
		return nil, err
	}
	for _, m := range g.Missing() {
		fmt.Println("left out:", m)
	}
	return g, nil
}

// more says whether round n is to be done after struck faults.
func more(p battery.Plan, o options, n, struck int) bool {
	if o.total > 0 {
		return struck < o.total
	}
	return n < p.First+p.Rounds
}

// rounds does them on one group. One that a finding leaves behind is replaced.
func rounds(ctx context.Context, p battery.Plan, o options) (all []*battery.Round, err error) {
	var s battery.System
	end := func() {
		if s == nil {
			return
		}
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, s.Close(closeCtx, false))
		s = nil
	}
	defer end()
	// A round does fewer faults than asked for only where it is interrupted.
	for n, struck := p.First, 0; more(p, o, n, struck); n++ {
		if s == nil {
			if s, err = start(ctx, o, filepath.Join(o.dir, fmt.Sprintf("from-%d", n))); err != nil {
				return all, err
			}
		}
		r, err := battery.RunRound(ctx, s, p, n)
		if err != nil {
			return all, err
		}
		all = append(all, r)
		struck += len(r.Struck)
		p.Logger.Info().Int("round", n).Int("faults", len(r.Struck)).Int("faults_so_far", struck).Dur("took", r.Took).Int("findings", len(r.Findings)).Msg("round")
		if len(r.Findings) == 0 {
			continue
		}
		where := filepath.Join(o.dir, fmt.Sprintf("finding-%d", n))
		if err := r.Save(where); err != nil {
			return all, err
		}
		if g, ok := s.(*battery.Group); ok && !o.leave {
			if err := g.SaveLogs(ctx, where); err != nil {
				return all, err
			}
		}
		battery.ReportFindings(os.Stdout, r, where, replay(p, o, n))
		if o.leave {
			s = nil
			return all, nil
		}
		end()
	}
	return all, nil
}

func replay(p battery.Plan, o options, n int) string {
	args := fmt.Sprintf("go run ./internal/battery/cmd -seed %d -first %d -rounds 1 -members %d -faults %d -hold %s -apart %s", p.Seed, n, o.members, p.Faults, p.Hold, p.Apart)
	if len(p.Only) > 0 {
		args += fmt.Sprintf(" -only %q", o.faults)
	}
	if len(p.Workloads) > 0 {
		args += " -workloads " + strings.Join(p.Workloads, ",")
	}
	if p.Before {
		args += " -before"
	}
	if o.control {
		args += " -control"
	}
	return args
}
