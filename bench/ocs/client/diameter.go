package main

import "encoding/binary"

// Numbers of RFC 6733, RFC 8506 and TS 32.299 that a plain Gy client needs.
const (
	cmdCapabilities  = 257
	cmdCreditControl = 272
	cmdWatchdog      = 280
	cmdDisconnect    = 282
	appCreditControl = 4

	flagRequest       = 0x80
	flagProxiable     = 0x40
	flagRetransmitted = 0x10
)

// avp appends an AVP with the M bit, padded.
func avp(to []byte, code uint32, value []byte) []byte {
	to = binary.BigEndian.AppendUint32(to, code)
	to = binary.BigEndian.AppendUint32(to, 0x40000000|uint32(8+len(value)))
	to = append(to, value...)
	for len(to)%4 != 0 {
		to = append(to, 0)
	}
	return to
}

func avp32(to []byte, code, value uint32) []byte {
	return avp(to, code, binary.BigEndian.AppendUint32(nil, value))
}

func avp64(to []byte, code uint32, value uint64) []byte {
	return avp(to, code, binary.BigEndian.AppendUint64(nil, value))
}

// message prefixes the AVPs with a header.
func message(flags byte, command, application, hop, end uint32, body []byte) []byte {
	m := make([]byte, 0, 20+len(body))
	m = binary.BigEndian.AppendUint32(m, 1<<24|uint32(20+len(body)))
	m = binary.BigEndian.AppendUint32(m, uint32(flags)<<24|command)
	m = binary.BigEndian.AppendUint32(m, application)
	m = binary.BigEndian.AppendUint32(m, hop)
	m = binary.BigEndian.AppendUint32(m, end)
	return append(m, body...)
}

// find gives the value of the first AVP with a code, or nil.
func find(avps []byte, code uint32) []byte {
	for len(avps) >= 8 {
		length := int(binary.BigEndian.Uint32(avps[4:]) & 0xFFFFFF)
		head := 8
		if avps[4]&0x80 != 0 {
			head = 12
		}
		if length < head || length > len(avps) {
			return nil
		}
		if binary.BigEndian.Uint32(avps) == code {
			return avps[head:length]
		}
		next := (length + 3) &^ 3
		if next > len(avps) {
			return nil
		}
		avps = avps[next:]
	}
	return nil
}

func number(value []byte) uint64 {
	switch len(value) {
	case 4:
		return uint64(binary.BigEndian.Uint32(value))
	case 8:
		return binary.BigEndian.Uint64(value)
	}
	return 0
}

// ccr is a Credit-Control-Request as a PGW sends it: one service, octets.
func ccr(o *options, q *request) []byte {
	b := make([]byte, 0, 512)
	b = avp(b, 263, []byte(o.host+";"+q.session+";bench"))
	b = avp(b, 264, []byte(o.host))
	b = avp(b, 296, []byte(o.realm))
	b = avp(b, 283, []byte(o.destination))
	b = avp32(b, 258, appCreditControl)
	b = avp(b, 461, []byte("32251@3gpp.org"))
	b = avp32(b, 416, q.kind)
	b = avp32(b, 415, q.number)
	b = avp32(b, 55, uint32(q.stamp.Unix()+2208988800))
	b = avp(b, 443, avp(avp32(nil, 450, 1), 444, []byte(q.imsi)))
	b = avp32(b, 455, 1)
	var service []byte
	if q.kind != terminate {
		service = avp(service, 437, avp64(nil, 421, o.quota))
	}
	if q.kind != initial {
		service = avp(service, 446, avp64(nil, 421, q.used))
	}
	service = avp32(service, 432, 1)
	return avp(b, 456, service)
}
