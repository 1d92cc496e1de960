package access

import (
	"crypto/x509"
	"fmt"

	"github.com/isthmus-iot/isthmus/bridge"
)

// identity is what a verified certificate says of its owner. The error carries Unauthenticated.
func identity(cert *x509.Certificate, part UseIdentity) (string, error) {
	var name string
	switch part {
	case IdentityCommonName:
		name = cert.Subject.CommonName
	case IdentityDNS:
		if len(cert.DNSNames) > 0 {
			name = cert.DNSNames[0]
		}
	case IdentityURI:
		if len(cert.URIs) > 0 {
			name = cert.URIs[0].String()
		}
	case IdentityEmail:
		if len(cert.EmailAddresses) > 0 {
			name = cert.EmailAddresses[0]
		}
	}
	switch {
	case name == "":
		return "", bridge.Refuse(bridge.Unauthenticated, fmt.Sprintf("certificate has no %s to name its user", part))
	case !plainText(name):
		return "", bridge.Refuse(bridge.Unauthenticated, fmt.Sprintf("%s of the certificate is not plain UTF-8 text", part))
	}
	return name, nil
}
