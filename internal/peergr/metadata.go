package peergr

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
)

// What MySQL Router reads of an InnoDB Cluster's metadata to follow a group's
// primary, in the form of its schema version 2.0, for a cluster that was not made by
// MySQL Shell.
const (
	clusterName = "peergr"
	clusterID   = "6f3a1c1e-7d0a-4f37-9a3e-0d4b7f0a1c55"
	routerUser  = "mysql_router"
)

// metadata are the statements that describe the group to a router.
func (g *Group) metadata() []string {
	const schema = "mysql_innodb_cluster_metadata"
	statements := []string{
		"CREATE DATABASE " + schema,
		"USE " + schema,
		"CREATE TABLE clusters (cluster_id CHAR(36) PRIMARY KEY, cluster_name VARCHAR(40), attributes JSON)",
		"CREATE TABLE instances (instance_id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, cluster_id CHAR(36), mysql_server_uuid CHAR(36), label VARCHAR(255), endpoint VARCHAR(255), attributes JSON)",
		"CREATE TABLE routers (router_id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, router_name VARCHAR(265), product_name VARCHAR(128), address VARCHAR(256), version VARCHAR(12), last_check_in TIMESTAMP NULL, attributes JSON, cluster_id CHAR(36), options JSON)",
		"CREATE VIEW schema_version (major, minor, patch) AS SELECT 2, 0, 3",
		"CREATE VIEW v2_gr_clusters AS SELECT 'gr' AS cluster_type, 'pm' AS primary_mode, cluster_id, cluster_name, attributes->>'$.group_replication_group_name' AS group_name, attributes FROM clusters",
		"CREATE VIEW v2_clusters AS SELECT * FROM v2_gr_clusters",
		"CREATE VIEW v2_instances AS SELECT instance_id, cluster_id, label, mysql_server_uuid, endpoint AS address, endpoint, NULL AS xendpoint, NULL AS grendpoint, attributes FROM instances",
		// A view cannot name a variable.
		"CREATE FUNCTION this_server() RETURNS CHAR(36) DETERMINISTIC NO SQL RETURN @@server_uuid",
		"CREATE VIEW v2_this_instance AS SELECT i.cluster_id, i.instance_id, c.cluster_name, c.cluster_type FROM v2_instances i JOIN v2_clusters c USING (cluster_id) WHERE i.mysql_server_uuid = CONVERT(this_server() USING utf8mb4)",
		"CREATE VIEW v2_routers AS SELECT router_id, cluster_id, router_name, product_name, address, version, last_check_in, options, attributes FROM routers",
		fmt.Sprintf(`INSERT INTO clusters VALUES ('%s', '%s', '{"group_replication_group_name": "%s"}')`, clusterID, clusterName, GroupName),
		"INSERT INTO routers (router_name, product_name, address, cluster_id) VALUES ('', 'MySQL Router', '127.0.0.1', '" + clusterID + "')",
	}
	for _, s := range g.Servers {
		statements = append(statements, fmt.Sprintf(`INSERT INTO instances (cluster_id, mysql_server_uuid, label, endpoint, attributes) VALUES ('%s', '%s', '%s', '%s', '{}')`,
			clusterID, s.UUID, s.Name, s.proc.Addr))
	}
	return append(statements,
		"CREATE USER "+routerUser+"@'%' IDENTIFIED BY '"+routerUser+"'",
		"GRANT SELECT, EXECUTE ON "+schema+".* TO "+routerUser+"@'%'",
		"GRANT INSERT, UPDATE, DELETE ON "+schema+".routers TO "+routerUser+"@'%'",
		"GRANT SELECT ON performance_schema.* TO "+routerUser+"@'%'",
	)
}

// followingRoute has the values that the router's own bootstrap writes.
func (g *Group) followingRoute() route {
	var servers []string
	for _, s := range g.Servers {
		servers = append(servers, "mysql://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(s.proc.Port)))
	}
	state, _ := json.Marshal(map[string]any{ // strings only: cannot fail
		"metadata-cache": map[string]any{"group-replication-id": GroupName, "cluster-metadata-servers": servers},
		"version":        "1.0.0",
	})
	return route{
		defaults: "connect_timeout = 5\nread_timeout = 30\nclient_connect_timeout = 9\n",
		sections: "[metadata_cache:bootstrap]\ncluster_type = gr\nrouter_id = 1\nuser = " + routerUser +
			"\nmetadata_cluster = " + clusterName + "\nttl = 0.5\nauth_cache_ttl = -1\nauth_cache_refresh_interval = 2\nuse_gr_notifications = 0\n\n",
		destinations: "metadata-cache://" + clusterName + "/?role=PRIMARY",
		state:        string(state),
		account:      routerUser,
	}
}

// makeKeyring makes the file from which the router takes its account's password,
// and returns the lines of its configuration that name it.
func makeKeyring(ctx context.Context, bin, dir, account string) (string, error) {
	keyring, key := filepath.Join(dir, "keyring"), filepath.Join(dir, "keyring.key")
	for _, args := range [][]string{
		{"init", keyring, "--master-key-file=" + key},
		{"set", keyring, account, "password", account, "--master-key-file=" + key},
	} {
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "mysqlrouter_keyring"), args...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("peergr: mysqlrouter_keyring %s: %w\n%s", args[0], err, out)
		}
	}
	return "keyring_path = " + keyring + "\nmaster_key_path = " + key + "\n", nil
}
