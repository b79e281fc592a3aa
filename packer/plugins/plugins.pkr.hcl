# For Packer 1.7 and later: `packer init packer/plugins`. A folder of its own, because 1.6.6 refuses to read it.

packer {
  required_plugins {
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = ">= 1.1.0"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.1.0"
    }
  }
}
