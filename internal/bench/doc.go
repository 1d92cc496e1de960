// Package bench loads MQTT brokers and measures what a delivered message costs them. It is a closed loop: a publisher is at
// most a window ahead of what its slowest subscriber has received, so nothing is lost by design, every message carries a
// number that is checked, and a broker is never measured while it only fills its queues.
//
// The generator shares the machine with the broker, so it is cheap: frames are encoded once and patched, what one read brings
// is handled as one batch with one write of acknowledgements, and the goroutine that received the last copy of a message
// sends the next one. The figure to compare is the broker's CPU time per delivered message ([Result.CPUPerMessage]), which
// does not depend on who else uses the machine as much as a rate does.
package bench
