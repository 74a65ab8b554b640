package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The one member action that a group of cohort members has: what a primary's mysqld
// needs to take writes. It cannot be switched off.
const (
	theAction = "mysql_disable_super_read_only_if_primary"
	theEvent  = "AFTER_PRIMARY_ELECTION"
)

// notPrimary refuses on a secondary, as the plugin does.
func (c functionCall) notPrimary() error {
	switch {
	case c.view.Primary != c.self:
		return errInit("Server must have super_read_only=0.")
	case !c.online:
		return errRun("Member must be the primary or OFFLINE.")
	}
	return nil
}

func (c functionCall) action() error {
	if err := c.notPrimary(); err != nil {
		return err
	}
	switch {
	case c.args[1].Text != theEvent:
		return errRun("Invalid event name.")
	case c.args[0].Text != theAction:
		return errRun("The action does not exist for this event.")
	}
	return nil
}

func enableAction(c functionCall) (string, error) {
	if err := c.action(); err != nil {
		return "", err
	}
	return "OK", nil // it always is
}

func disableAction(c functionCall) (string, error) {
	if err := c.action(); err != nil {
		return "", err
	}
	return "", errRun("A primary of cohort members always takes writes: this action cannot be disabled.")
}

func resetActions(c functionCall) (string, error) {
	if err := c.notPrimary(); err != nil {
		return "", err
	}
	return "", errRun("Member must be OFFLINE to reset its member actions configuration.")
}

// lowestProtocol is the first version of the plugin.
const lowestProtocol = "5.7.14"

// setProtocol makes the plugin's checks. There is nothing to set.
func setProtocol(c functionCall) (string, error) {
	text := c.args[0].Text
	if !c.online {
		return "", errNotOnline
	}
	v, ok := versionOf(text)
	if !ok {
		return "", errInit("'" + text + "' is not version string argument with format major.minor.patch")
	}
	low, _ := versionOf(lowestProtocol)
	me, _ := c.view.Member(c.self)
	server, _, _ := strings.Cut(me.Info.MysqldVersion, "-")
	if high, ok := versionOf(server); slices.Compare(v, low) < 0 || ok && slices.Compare(v, high) > 0 {
		return "", errInit(fmt.Sprintf("%s is not between %s and %s", text, lowestProtocol, server))
	}
	return "", errRun("A group of cohort members has no communication protocol of the plugin's.")
}

func versionOf(text string) ([]int, bool) {
	parts := strings.Split(text, ".")
	v := make([]int, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, false
		}
		v[i] = int(n)
	}
	return v, len(v) == 3
}
