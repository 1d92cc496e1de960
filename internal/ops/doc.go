// Package ops is how a running gateway is watched and operated: metrics for Prometheus and health over HTTP for the outside,
// and the admin API (status, explain, reload) on a Unix socket for whoever may open it. It is the only package that knows
// the Prometheus library.
package ops
