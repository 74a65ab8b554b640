CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(2000))
!prepare INSERT INTO t VALUES (?,?)
!execute 1 1 one
!execute 1 1 one
SHOW WARNINGS
!execute 1 2 two
SELECT ROW_COUNT()
!prepare COMMIT
!prepare ROLLBACK
!prepare BEGIN
BEGIN
!execute 1 3 three
!execute 2
!ping
BEGIN
!execute 1 4 four
!execute 3
SELECT * FROM t
!prepare SELECT * FROM t WHERE a > ? ORDER BY a
!execute 4 0
!cursor 4 0
!fetch 4 1
!fetch 4 5
!stmtreset 4
!close 4
!execute 4 0
!long 1 5
!prepare CREATE TABLE u (a INT PRIMARY KEY)
BEGIN
!execute 1 6 six
!execute 5
ROLLBACK
SELECT COUNT(*) FROM t
!prepare syntax error
!prepare UPDATE t SET b='u' WHERE a=?
!execute 6 1
!execute 6 77
!prepare SET autocommit=0
!execute 7
!execute 6 2
!execute 3
SELECT * FROM t WHERE a=2
COMMIT
SET autocommit=1
PREPARE p FROM 'INSERT INTO t VALUES (?, ?)'
SET @a=20, @b='t'
EXECUTE p USING @a, @b
EXECUTE p USING @a, @b
SHOW WARNINGS
PREPARE c FROM 'COMMIT'
SET @r = 'ROLLBACK'
PREPARE r FROM @r
BEGIN
SET @a=21
EXECUTE p USING @a, @b
EXECUTE c
!ping
BEGIN
SET @a=22
EXECUTE p USING @a, @b
EXECUTE r
!ping
SELECT COUNT(*) FROM t
PREPARE d FROM 'CREATE TABLE v (a INT)'
BEGIN
EXECUTE p USING @a, @b
EXECUTE d
ROLLBACK
SELECT COUNT(*) FROM t
DEALLOCATE PREPARE p
EXECUTE p USING @a, @b
DROP PREPARE c
EXECUTE nosuch
PREPARE s FROM 'SELECT 1; SELECT 2'
PREPARE s FROM 'syntax'
EXECUTE s
EXECUTE IMMEDIATE 'x'
