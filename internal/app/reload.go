package app

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Reload puts the configuration file in force as it is now, or nothing of it: load, validate, prepare, open new listeners,
// and only when all that went well swap, serve the new and end the vanished. Listeners that stay keep their clients, those of
// vanished ones are told to go. An error says what is wrong; the old configuration then stays in force. The result is also in
// the log and in the metric isthmus_config_last_reload_successful.
func (a *App) Reload(ctx context.Context) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.told(a.notify.reloading())
	err := a.reload(ctx)
	a.mu.Lock()
	a.reloaded = err == nil
	if err == nil {
		a.reloadedAt = time.Now()
	}
	a.mu.Unlock()
	if err != nil {
		a.log.Error("reload failed, the configuration before it stays in force", "error", err)
	} else {
		a.log.Info("reloaded", "file", a.config.File)
	}
	a.told(a.notify.ready(a.summary()))
	return err
}

func (a *App) reload(ctx context.Context) error {
	switch {
	case a.state != running:
		return errors.New("the gateway is not running")
	case a.config.File == "":
		return errors.New("the gateway runs without a configuration file, so there is nothing to reload")
	}
	next, err := Load(a.config.File)
	if err != nil {
		return err
	}
	if err := a.config.restartOnly(next); err != nil {
		return err
	}
	prepared, err := a.prepare(next)
	if err != nil {
		return err
	}
	stays := func(l *listener) bool {
		return slices.ContainsFunc(next.listeners(), func(at listenerAt) bool { return at.Address == l.Address })
	}
	var kept, vanished []*listener
	for _, l := range a.listeners {
		if stays(l) {
			kept = append(kept, l)
		} else {
			vanished = append(vanished, l)
		}
	}
	opened, err := a.openNew(ctx, next, kept, vanished)
	if err != nil {
		return err
	}

	// From here on nothing can fail.
	a.access.Store(prepared.access)
	if prepared.tls != nil { // a handshake may still be under way on a listener that vanishes
		a.tls.Store(prepared.tls)
	}
	a.hub.SetAccess(door{prepared.access})
	a.hub.SetLimits(next.Limits)
	a.hub.SetDurability(next.Store.rules(), next.Store.Durability.durability())
	a.mqtt.SetLimits(next.MQTT.Limits)
	a.log.set(next.Log.Level)
	a.mu.Lock()
	a.config, a.listeners = next, append(kept, opened...)
	a.mu.Unlock()
	for _, l := range opened {
		a.serve(l)
	}
	for _, l := range vanished {
		l.end()
		sent := 0
		for _, socket := range l.sockets {
			sent += a.mqtt.SendAway(socket)
		}
		a.log.Info("no longer listening", "address", l.Address.String(), "sent_away", sent)
	}
	return nil
}

// openNew opens the addresses that next has and that are not listened on yet.
func (a *App) openNew(ctx context.Context, next *Config, kept, vanished []*listener) ([]*listener, error) {
	var fresh []listenerAt
	for _, at := range next.listeners() {
		if slices.ContainsFunc(kept, func(l *listener) bool { return l.Address == at.Address }) {
			continue
		}
		for _, old := range vanished {
			if at.overlaps(old.Address) {
				return nil, Problems{next.problem(at.path, "restart the gateway, or reload once without "+old.Address.String()+" and then with "+at.Address.String(),
					"%s can only be opened after %s is closed", at.Address, old.Address)}
			}
		}
		fresh = append(fresh, at)
	}
	return a.open(ctx, fresh)
}

// restartOnly reports changes that a reload cannot put in force.
func (c *Config) restartOnly(next *Config) error {
	var problems Problems
	for path, changed := range map[string]bool{
		"gateway.id":           c.Gateway.ID != next.Gateway.ID,
		"gateway.data":         c.Gateway.Data != next.Gateway.Data,
		"mqtt.sys_interval":    c.MQTT.SysInterval != next.MQTT.SysInterval,
		"mqtt.shared_strategy": c.MQTT.SharedStrategy != next.MQTT.SharedStrategy,
		"store.limit_bytes":    c.Store.Limit != next.Store.Limit,
		"store.reserve_bytes":  c.Store.Reserve != next.Store.Reserve,
		"log.format":           c.Log.Format != next.Log.Format,
	} {
		if changed {
			problems = append(problems, next.problem(path, "restart the gateway, or set it back", "%s cannot change while the gateway runs", path))
		}
	}
	return problems.asError(next.File, next.text)
}
