// Package whiteout reads and writes what overlayfs stores in its layers: whiteouts, opaque directories, redirects, metacopy
// files, origins and the xattr names that carry them. It works on names and bytes only; it makes no system call.
//
// # Model
//
// A union is a stack of layers, topmost first. An entry of a layer either shows through, or says something about the layers
// below it:
//
//   - a whiteout hides the entry of that name below;
//   - an opaque directory hides the whole directory below; a directory that is not opaque is merged with it;
//   - a redirect says that what lies below is found under another name (a renamed directory, the data of a metacopy file);
//   - a metacopy file has the metadata of a file whose data lies below.
//
// The other marks belong to an upper layer only and change nothing of what is shown: origin (the file a copy was made of, so
// that inode numbers stay), impure, nlink, protattr, and, in the index directory, upper.
//
// # Formats
//
// NS stands for "trusted.overlay." or, with the mount option userxattr, "user.overlay." (see [Namespace]). "Kernel" names the
// function of fs/overlayfs that sets the rule.
//
//	what             where                        form                                        read by               kernel
//	whiteout         an entry                     character device 0:0, any mode              IsDevice              ovl_is_whiteout
//	xattr whiteout   an empty regular file        NS whiteout, any value                      IsXattrWhiteout       ovl_path_check_xwhiteout_xattr
//	opaque           directory                    NS opaque = "y"                             ParseOpaque           ovl_get_opaquedir_val
//	holds xattr w.   directory of a lower layer   NS opaque = "x"                             ParseOpaque           ovl_lookup_single
//	AUFS whiteout    an entry                     any type, named ".wh." NAME                 ParseAUFS             (none)
//	AUFS opaque      an entry of the directory    any type, named ".wh..wh..opq"              ParseAUFS             (none)
//	redirect         directory, metacopy file     NS redirect = NAME, or "/" PATH             ParseRedirect         ovl_get_redirect_xattr
//	metacopy         regular file                 NS metacopy = empty, or version len flags   ParseMetacopy         ovl_check_metacopy_xattr
//	                                              algorithm digest (1 byte each, digest <= 64)
//	origin           any, copied up               NS origin = empty, or version magic len     ParseOrigin           ovl_check_fb_len
//	                                              flags type (1 byte each) uuid[16] handle
//	upper            directory in the index       NS upper = as origin                        ParseOrigin           ovl_index_upper
//	index entry      name in the index directory  origin in lower-case hexadecimal            ParseIndexName        ovl_verify_index
//	exported handle  name_to_handle_at            type 0xf8: 0 0 0 origin; 0xfb: origin 0 0 0  ParseFileHandle     ovl_fid_to_fh
//	impure           directory                    NS impure = "y"                             ParseImpure           ovl_is_impuredir
//	nlink            indexed file                 NS nlink = ("L"|"U") ("+"|"-") NUMBER       ParseNlink            ovl_get_nlink
//	protattr         any                          NS protattr = letters "a", "i"              ParseProtection       ovl_check_protattr
//	uuid             root of the upper layer      NS uuid = 16 bytes                          (as it is)            ovl_init_uuid_xattr
//	escaped          any                          NS "overlay." NAME stands for NS NAME       Namespace.Unescape    ovl_listxattr
//
// What the kernel makes of them, where the form does not say it all:
//
//   - Look-up honours an xattr whiteout wherever it lies. Only the reading of directories asks for the mark "x", because
//     testing each empty file would cost one getxattr an entry.
//   - "x" counts in lower layers only, "y" in all. Another value, or a longer one, is no mark at all.
//   - A relative redirect replaces the last element of the path looked for below; an absolute one replaces the whole path, and
//     also makes look-up go on below an opaque parent.
//   - Whatever is wrong with an origin, it is treated as unknown, never as an error; a bad redirect fails with EINVAL and a bad
//     metacopy with EIO.
//
// # Input is not trusted
//
// Layers come from images that anybody may have made. Each parser takes any bytes, allocates no more than the input's size,
// and answers with an error that wraps the errno with which the kernel fails the look-up.
package whiteout
