package writeset

// eventType is the type code that mysqld writes for a column in Table_map
// events, typeNull if it is not known.
func (c *column) eventType() byte {
	switch c.dataType {
	case "tinyint":
		return typeTiny
	case "smallint":
		return typeShort
	case "mediumint":
		return typeInt24
	case "int":
		return typeLong
	case "bigint":
		return typeLonglong
	case "float":
		return typeFloat
	case "double":
		return typeDouble
	case "decimal":
		return typeNewDecimal
	case "date":
		return typeDate
	case "time":
		return typeTime2
	case "datetime":
		return typeDatetime2
	case "timestamp":
		return typeTimestamp2
	case "year":
		return typeYear
	case "bit":
		return typeBit
	case "char", "binary", "enum", "set":
		return typeString
	case "varchar", "varbinary":
		return typeVarchar
	case "tinyblob", "blob", "mediumblob", "longblob", "tinytext", "text", "mediumtext", "longtext":
		return typeBlob
	case "json":
		return typeJSON
	case "vector":
		return typeVector
	case "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
		"geomcollection", "geometrycollection":
		return typeGeometry
	}
	return typeNull
}

// matches says whether d can be the definition that a Table_map event was
// written under: same columns by number, type, size and collation. A difference
// means that a statement changed the table in between.
func (d *definition) matches(m *tableMap) bool {
	if len(d.columns) != len(m.types) {
		return false
	}
	chars := 0
	for i := range d.columns {
		c := &d.columns[i]
		if !c.matches(m.types[i], m.meta[i]) {
			return false
		}
		if !isCharacter(m.types[i], m.meta[i]) {
			continue
		}
		if chars < len(m.collations) {
			id := binaryCollation.id
			if c.collation != nil {
				id = c.collation.id
			}
			if m.collations[chars] != id {
				return false
			}
		}
		chars++
	}
	return len(m.collations) == 0 || len(m.collations) == chars
}

func (c *column) matches(t byte, meta uint16) bool {
	want := c.eventType()
	switch t {
	case typeTimestamp, typeTime, typeDatetime:
		// Columns from before 5.6.4 keep their old types.
		return want == t+typeTimestamp2-typeTimestamp && t == typeTimestamp ||
			want == typeTime2 && t == typeTime || want == typeDatetime2 && t == typeDatetime
	}
	if want != t {
		return false
	}
	switch t {
	case typeTimestamp2, typeTime2, typeDatetime2:
		return int64(meta) == c.fraction
	case typeNewDecimal:
		return int64(meta>>8) == c.precision && int64(meta&0xff) == c.scale
	case typeVarchar:
		return int64(meta) == c.octets
	case typeBit:
		return int64(meta>>8)*8+int64(meta&0xff) == c.precision
	case typeString:
		real, length := stringMeta(meta)
		switch c.dataType {
		case "enum":
			return real == typeEnum
		case "set":
			return real == typeSet
		}
		return real == typeString && int64(length) == c.octets
	case typeBlob:
		return int(meta) == blobBytes(c.dataType)
	}
	return true
}

func blobBytes(dataType string) int {
	switch dataType {
	case "tinyblob", "tinytext":
		return 1
	case "blob", "text":
		return 2
	case "mediumblob", "mediumtext":
		return 3
	}
	return 4
}
