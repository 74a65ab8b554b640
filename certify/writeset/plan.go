package writeset

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// keyPart is one column of a key with the way to normalise it.
type keyPart struct {
	col    int
	form   form
	coll   *collation
	prefix int
}

// key is a unique key whose values are hashed, or one that stands for what
// foreign keys refer to.
type key struct {
	seed  uint64
	parts []keyPart
	// identity: it tells which row was changed, so it counts even when its
	// value stays.
	identity bool
	// constant: all values are alike.
	constant bool
	// referenced by a foreign key; cascades: changes of child rows that events
	// do not show.
	referenced                   bool
	cascadeUpdate, cascadeDelete bool
}

// plan is how to read the rows of one table.
type plan struct {
	raw    []byte // the Table_map event behind the table's number
	object string // "schema\x00table"
	hash   uint64
	widths []width
	keys   []key
	refs   []key // keys of parents, parts being columns of this table
	// coarse: the definition is not known, only the table as a whole is.
	coarse      bool
	serial      bool
	commitOrder bool
	refuse      string
}

// fkTable is the index name of a key that stands for a parent as a whole.
const fkTable = "\x01table"

// newPlan joins a definition, nil if there is none, with the event.
func (e *Extractor) newPlan(ctx context.Context, m *tableMap, raw []byte, d *definition) (*plan, error) {
	schema, table := string(m.schema), string(m.table)
	p := &plan{
		raw: slices.Clone(raw), object: schema + "\x00" + table, hash: TableHash(schema, table),
		widths: make([]width, len(m.types)),
	}
	for i := range m.types {
		w, ok := widthOf(m.types[i], m.meta[i])
		if !ok {
			return nil, fmt.Errorf("writeset: %s.%s: column %d has type %d, which row events do not carry", schema, table, i, m.types[i])
		}
		p.widths[i] = w
	}
	if d == nil || !d.matches(m) {
		p.coarse = true
		return p, nil
	}
	switch id := d.identity(); {
	case !strings.EqualFold(d.engine, "InnoDB"):
		p.refuse = fmt.Sprintf("table %s.%s uses the storage engine %s, not InnoDB", schema, table, d.engine)
	case id < 0:
		p.refuse = fmt.Sprintf("table %s.%s has no primary key", schema, table)
	default:
		e.uniqueKeys(p, d, id)
	}
	if p.refuse != "" {
		// What mysqld has committed already is ordered nevertheless.
		p.coarse = true
		return p, nil
	}
	// The server's own tables steer how it executes statements.
	p.serial = strings.EqualFold(schema, "mysql")
	for i := range d.in {
		if err := e.parentKey(ctx, p, d, &d.in[i]); err != nil {
			return nil, err
		}
	}
	for i := range d.out {
		if err := e.childRef(ctx, p, d, &d.out[i]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (e *Extractor) uniqueKeys(p *plan, d *definition, identity int) {
	for i := range d.indexes {
		x := &d.indexes[i]
		k := key{seed: seedOf(d.schema, d.table, x.name), identity: i == identity}
		if x.functional {
			// Its values are not in the events. Nothing overtakes anything on
			// this table, which keeps the applier right, and as a key every
			// row is like every other.
			p.commitOrder = true
			k.constant = true
		} else {
			k.parts, k.constant = partsOf(d, x.parts)
		}
		for _, pt := range x.parts {
			p.commitOrder = p.commitOrder || d.columns[pt.col].virtual
		}
		p.keys = append(p.keys, k)
	}
}

// partsOf returns how to normalise columns of d; constant is true if one of
// them cannot be.
func partsOf(d *definition, cols []part) (parts []keyPart, constant bool) {
	for _, c := range cols {
		col := &d.columns[c.col]
		kp := keyPart{col: c.col}
		switch t := col.eventType(); t {
		case typeVarchar, typeString, typeBlob:
			switch col.dataType {
			case "enum", "set": // compared by number
				kp.form = formRaw
			default:
				kp = stringPart(c.col, col.collation, c.prefix)
			}
		default:
			kp.form = formOf(t)
		}
		if kp.form == formNone {
			constant = true
		}
		parts = append(parts, kp)
	}
	return parts, constant
}

// stringPart is the part of a key that is a string or its first characters.
func stringPart(col int, coll *collation, prefix int) keyPart {
	if coll == nil {
		coll = binaryCollation
	}
	kp := keyPart{col: col, coll: coll, prefix: prefix, form: coll.form()}
	if prefix > 0 && !coll.countable() {
		kp.form = formNone
	}
	return kp
}

// reference says how a foreign key finds its parent, in the same way from both
// ends: by a unique index of the parent, by a key of its own over the columns,
// or, where types differ, by the parent as a whole.
func reference(f *foreignKey, parent, child *definition) (indexName string, cols []part, whole bool) {
	for i := range f.parentCols {
		at := parent.column(f.parentCols[i])
		from := -1
		if child != nil {
			from = child.column(f.childCols[i])
		}
		if at < 0 || from < 0 || !alike(&parent.columns[at], &child.columns[from]) {
			return fkTable, nil, true
		}
		cols = append(cols, part{col: at})
	}
	for i := range parent.indexes {
		if x := &parent.indexes[i]; !x.functional && slices.Equal(x.parts, cols) {
			return x.name, cols, false
		}
	}
	return "\x01" + strings.ToLower(strings.Join(f.parentCols, "\x01")), cols, false
}

// alike says whether values of two columns that compare equal have the same
// bytes or the same weights.
func alike(a, b *column) bool {
	ta, tb := a.eventType(), b.eventType()
	if ta != tb {
		return false
	}
	switch ta {
	case typeVarchar, typeBlob:
		return a.collation == b.collation
	case typeString:
		// ENUM and SET compare by number, CHAR by collation; BINARY is padded.
		return a.collation == b.collation && a.dataType == b.dataType &&
			(a.dataType == "char" || a.octets == b.octets)
	}
	return a.precision == b.precision && a.scale == b.scale && a.fraction == b.fraction
}

// parentKey adds what a foreign key that refers to p's table refers to.
func (e *Extractor) parentKey(ctx context.Context, p *plan, d *definition, f *foreignKey) error {
	child := d
	if f.childSchema != d.schema || f.childTable != d.table {
		var err error
		if child, err = e.src.load(ctx, f.childSchema, f.childTable, false); err != nil {
			return err
		}
	}
	name, cols, whole := reference(f, d, child)
	seed := seedOf(d.schema, d.table, name)
	at := slices.IndexFunc(p.keys, func(k key) bool { return k.seed == seed })
	if at < 0 {
		k := key{seed: seed, constant: whole, identity: whole}
		if !whole {
			k.parts, k.constant = partsOf(d, cols)
		}
		at = len(p.keys)
		p.keys = append(p.keys, k)
	}
	k := &p.keys[at]
	k.referenced = true
	k.cascadeUpdate = k.cascadeUpdate || f.cascadeUpdate
	k.cascadeDelete = k.cascadeDelete || f.cascadeDelete
	return nil
}

// childRef adds the key of the parent that a foreign key of p's table names.
func (e *Extractor) childRef(ctx context.Context, p *plan, d *definition, f *foreignKey) error {
	parent := d
	if f.parentSchema != d.schema || f.parentTable != d.table {
		var err error
		if parent, err = e.src.load(ctx, f.parentSchema, f.parentTable, false); err != nil {
			return err
		}
	}
	if parent == nil {
		return nil // made without its parent under foreign_key_checks=0
	}
	name, cols, whole := reference(f, parent, d)
	r := key{seed: seedOf(parent.schema, parent.table, name), constant: whole}
	if !whole {
		// Normalised as the parent does it, from this table's columns.
		r.parts, r.constant = partsOf(parent, cols)
	}
	for i := range f.childCols {
		at := d.column(f.childCols[i])
		if at < 0 {
			return fmt.Errorf("writeset: foreign key %s has unknown column %s", f.name, f.childCols[i])
		}
		if whole {
			r.parts = append(r.parts, keyPart{col: at, form: formNone})
		} else {
			r.parts[i].col = at
		}
	}
	p.refs = append(p.refs, r)
	return nil
}
