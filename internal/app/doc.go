// Package app puts the gateway together: it reads the configuration, builds hub, access rules, certificates, endpoints and
// the operations listener from it, runs them, and reloads all or nothing. It is the only package that knows the
// configuration file.
package app
