// Package certs makes and loads TLS certificates: a development authority with server and client certificates for a gateway
// that is just started or set up, and a [Reloader] that takes changed certificates and client authorities without dropping
// anyone.
//
// Files are PEM. Keys that are made are ECDSA P-256 in PKCS #8, readable by their owner only.
package certs
