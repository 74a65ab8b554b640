SELECT @@sql_mode
SET sql_mode='ANSI_QUOTES'
CREATE TABLE "t" ("a" INT PRIMARY KEY, b VARCHAR(20))
INSERT INTO "t" VALUES (1, '";COMMIT')
SELECT "a" FROM "t"; SELECT ';' AS "x;y"
SET sql_mode='NO_BACKSLASH_ESCAPES'
INSERT INTO t VALUES (2, 'a\'); SELECT 1
SELECT * FROM t
SET sql_mode=DEFAULT
SET NAMES gbk
SELECT COUNT(*) FROM t
INSERT INTO t VALUES (1,'x')
SHOW WARNINGS
SET NAMES utf8mb4
SET character_set_results=latin1
INSERT INTO t VALUES (1,'x')
SHOW WARNINGS
SET NAMES utf8mb4
!initdb plain
USE plain
SET session_track_gtids=OWN_GTID
SET session_track_schema=OFF
USE plain
SET session_track_schema=ON
USE plain
SET session_track_system_variables='sql_mode'
SET sql_mode='ANSI_QUOTES'
SET autocommit=1
SET session_track_system_variables=DEFAULT
CREATE TABLE gt (a INT PRIMARY KEY)
INSERT INTO gt VALUES (1)
BEGIN
INSERT INTO gt VALUES (2)
COMMIT
SELECT * FROM gt
UPDATE gt SET a=1 WHERE a=5
DROP TABLE gt
SET session_track_gtids=OFF
SET sql_mode=DEFAULT
SET time_zone='+01:00'
INSERT INTO t VALUES (3,'x')
!setoption 1
SELECT 1; SELECT 2
!setoption 0
SELECT 1; SELECT 2
!reset
SELECT @@sql_mode, @@time_zone
INSERT INTO t VALUES (4,'x')
BEGIN
INSERT INTO t VALUES (5,'x')
!reset
SELECT COUNT(*) FROM t
!ping
SET GLOBAL max_connections=10
SET PERSIST max_connections=10
SELECT 1 /*!99999 + 1 */ /*!50000 + 2 */ -- x
SHOW VARIABLES LIKE 'autocommit'
